"""One way to find plugins: the modules of a folder, then the entry points of installed packages."""

from __future__ import annotations

import importlib
import pkgutil
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*\Z")
_MODULE = re.compile(r"[\w.]+\Z")


@dataclass(frozen=True, slots=True)
class PluginProblem:
    """Why a plugin of an installed package is not used.

    Attributes:
        package: the name and version of the package, such as `mqttjobs-wake 1.0`.
        group: the entry point group, such as `mqttjobs.executors`.
        entry_point: the name of the entry point in the group.
        message: what is wrong with the plugin.
    """

    package: str
    group: str
    entry_point: str
    message: str

    def __str__(self) -> str:
        """Return one sentence that says which plugin of which package, and what is wrong."""
        return f"the plugin {self.entry_point!r} of {self.package} ({self.group}) is not used: {self.message}"


class _Plugin(NamedTuple, Generic[T]):
    """What one entry point offers."""

    entry: EntryPoint
    members: Mapping[str, T]


class Family(Generic[T]):
    """All plugins of one kind, by the names that they give themselves.

    What is wrong with a module of `folder` is raised: these come with mqttjobs. A module that an installed package
    names is left out whole, with a PluginProblem, if it cannot be imported, lacks what the family needs, or gives a
    name that is taken. The names of mqttjobs's own modules stay theirs. Where two packages give the same name, neither
    is used: which of the two runs must not depend on the order in which they are found.

    Args:
        folder: the package whose modules are the plugins that come with mqttjobs.
        group: the entry point group in which installed packages name their modules, such as
            `[project.entry-points."mqttjobs.executors"] http = "their.module"`.
        noun: what a name is, in messages: "operation type".
        read: yields the names that a module gives, each with what it stands for; raises ValueError with what the
            module lacks.
    """

    def __init__(
        self, folder: str, group: str, *, noun: str, read: Callable[[ModuleType], Iterable[tuple[str, T]]]
    ) -> None:
        self.folder = folder
        self.group = group
        self._noun = noun
        self._read = read
        self._found: tuple[Mapping[str, T], Sequence[PluginProblem]] | None = None

    def members(self) -> Mapping[str, T]:
        """Return what can be used, sorted by name; found once for each process."""
        return self._find()[0]

    def problems(self) -> Sequence[PluginProblem]:
        """Return why plugins of installed packages are not used."""
        return self._find()[1]

    def forget(self) -> None:
        """Look again at the next call, as a new process would."""
        self._found = None

    def _find(self) -> tuple[Mapping[str, T], Sequence[PluginProblem]]:
        if self._found is None:
            own: dict[str, T] = {}
            for module in folder_modules(self.folder):
                for name, member in self._members(module).items():
                    if own.setdefault(name, member) is not member:
                        raise ValueError(f"{module.__name__}: another module has the {self._noun} {name!r}")
            problems: list[PluginProblem] = []
            plugins = list(self._installed(problems))
            for plugin in self._without_clashes(plugins, own, problems):
                own |= plugin.members
            self._found = dict(sorted(own.items())), tuple(problems)
        return self._found

    def _members(self, module: ModuleType) -> dict[str, T]:
        """Return what a module gives; raises ValueError where it gives a name twice."""
        members: dict[str, T] = {}
        for name, member in self._read(module):
            if members.setdefault(name, member) is not member:
                raise ValueError(f"{module.__name__} has the {self._noun} {name!r} twice")
        return members

    def _installed(self, problems: list[PluginProblem]) -> Iterator[_Plugin[T]]:
        """Yield the plugins of installed packages that are whole, each on its own."""
        for entry in sorted(entry_points(group=self.group), key=lambda each: (each.name, _package(each))):
            if not _MODULE.match(entry.value):
                problems.append(self._problem(entry, f"{entry.value!r} is no name of a module"))
                continue
            try:
                module = importlib.import_module(entry.value)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a strange module may raise anything
                message = f"it cannot be imported: {type(error).__name__}: {error}{_where(error)}"
                problems.append(self._problem(entry, message))
                continue
            try:
                members = self._members(module)
            except ValueError as error:
                problems.append(self._problem(entry, str(error)))
                continue
            if members:
                yield _Plugin(entry, members)
            else:
                problems.append(self._problem(entry, f"{entry.value} has no {self._noun}"))

    def _without_clashes(
        self, plugins: Sequence[_Plugin[T]], own: Mapping[str, T], problems: list[PluginProblem]
    ) -> Iterator[_Plugin[T]]:
        """Yield the plugins that give no name that is taken."""
        for plugin in plugins:
            taken = self._taken(plugin, plugins, own)
            if taken is None:
                yield plugin
            else:
                problems.append(self._problem(plugin.entry, taken))

    def _taken(self, plugin: _Plugin[T], plugins: Sequence[_Plugin[T]], own: Mapping[str, T]) -> str | None:
        """Return which name of a plugin is taken and by what, or None; a module that is named twice is one."""
        for name, member in plugin.members.items():
            if own.get(name, member) is not member:
                return f"the {self._noun} {name!r} is one of mqttjobs itself"
            for other in plugins:
                if other.members.get(name, member) is not member:
                    return f"the {self._noun} {name!r} is in {_package(other.entry)} too; uninstall one of the two"
        return None

    def _problem(self, entry: EntryPoint, message: str) -> PluginProblem:
        return PluginProblem(_package(entry), self.group, entry.name, message)


def folder_modules(folder: str) -> Iterator[ModuleType]:
    """Import and yield the modules of a package, sorted by name."""
    parent = importlib.import_module(folder)
    for info in sorted(pkgutil.iter_modules(parent.__path__), key=lambda each: each.name):
        yield importlib.import_module(f"{folder}.{info.name}")


def schemes_of(module: ModuleType, *functions: str) -> frozenset[str]:
    """Return the URL schemes that a module declares in SCHEMES, checked.

    Args:
        module: a store or a transport.
        functions: the functions that it must have.

    Raises:
        ValueError: SCHEMES is not there or is no set of schemes, or a function is not there.
    """
    schemes = getattr(module, "SCHEMES", None)
    if not isinstance(schemes, frozenset | set | tuple | list) or not schemes:
        raise ValueError(f'{module.__name__} has no SCHEMES, such as SCHEMES = frozenset({{"redis"}})')
    for scheme in schemes:
        if not isinstance(scheme, str) or not _SCHEME.match(scheme):
            raise ValueError(f"{module.__name__}: {scheme!r} in SCHEMES is no scheme of a URL in lower case")
    for name in functions:
        if not callable(getattr(module, name, None)):
            raise ValueError(f"{module.__name__} has no function {name}()")
    return frozenset(schemes)


def for_url(members: Mapping[str, T], url: str, example: str) -> T:
    """Return the member that knows the scheme of a URL.

    Raises:
        ValueError: none does; the text shows `example` and lists the schemes that are known.
    """
    scheme, colon, _ = url.partition(":")
    if not colon or scheme.lower() not in members:
        raise ValueError(f"must be like {example}; the known schemes are {', '.join(members)}")
    return members[scheme.lower()]


def _package(entry: EntryPoint) -> str:
    return "a package without a name" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _where(error: BaseException) -> str:
    """Return where in a plugin an import failed; nothing where there is no such module."""
    machinery = (__file__, importlib.__file__)
    frames = traceback.extract_tb(error.__traceback__)
    inside = [each for each in frames if each.filename not in machinery and not each.filename.startswith("<frozen")]
    return f" ({inside[-1].filename}:{inside[-1].lineno})" if inside else ""
