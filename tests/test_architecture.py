"""What holds of the code as a whole, beyond what ruff and import-linter say."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

import mqttjobs
from mqttjobs.config.plugins import FAMILIES
from mqttjobs.domain.conditions.base import condition_kinds
from mqttjobs.errors import StoreRefused, TransportError
from mqttjobs.executors.base import executor_types
from mqttjobs.registry import folder_modules
from mqttjobs.service.api.request import methods
from mqttjobs.store.base import create_store
from mqttjobs.transport.base import ConnectOptions, create_transport

SOURCE = Path(mqttjobs.__file__).parent
MODULES = {str(path.relative_to(SOURCE)): path for path in sorted(SOURCE.rglob("*.py"))}
LONGEST_FUNCTION = 60
MISSING_IDEAS = {"util", "utils", "helper", "helpers", "common", "core", "manager", "managers", "misc", "base_utils"}


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES.keys())
def test_a_module_is_one_idea_that_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
    assert docstring.partition("\n")[0].endswith((".", "…", ":")), "its first line is a sentence"


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES.keys())
def test_a_function_fits_a_screen(path: Path) -> None:
    too_long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    ]
    assert not too_long


def test_no_module_has_the_name_of_a_missing_idea() -> None:
    for name in MODULES:
        assert not {*Path(name).with_suffix("").parts} & MISSING_IDEAS, name
        assert not Path(name).stem.endswith(("_utils", "_helpers", "_manager")), name


def test_no_two_modules_of_one_floor_are_named_alike() -> None:
    for folder in {path.parent for path in MODULES.values()}:
        stems = [path.stem for path in folder.glob("*.py")] + [path.name for path in folder.iterdir() if path.is_dir()]
        assert len(stems) == len(set(stems)), folder


# -- leaves: one file of a family, found without any other file being touched -----------------------------------------

EXECUTOR = '''
"""echo: says what it is told."""

from __future__ import annotations

from typing import ClassVar

from mqttjobs.domain.jobs import Outcome
from mqttjobs.executors.base import Executor, RunContext


class Echo(Executor):
    """Says `text`."""

    kind: ClassVar[str] = "echo"
    text: str

    async def run(self, context: RunContext) -> Outcome:
        """See Executor."""
        return Outcome(ok=True, result=self.text)
'''
METHOD = '''
"""What is asked of nobody."""

from __future__ import annotations

from mqttjobs.domain.model import Json
from mqttjobs.service.api.request import NoParams, RequestContext, method


@method("echo/say", "job:read", params=NoParams)
async def say(request: RequestContext, params: NoParams) -> Json:
    """Say nothing."""
    return {}
'''
STORE = '''
"""A store that says its URL."""

SCHEMES = ("echo",)


def resolve_url(url, folder):
    """Return the URL."""
    return url


def create(url: str) -> str:
    """Return the URL."""
    return url
'''
TRANSPORT = '''
"""A transport that says its URL."""

SCHEMES = ("echo",)
OPTIONS = ()


def resolve_url(url, folder):
    """Return the URL."""
    return url


def create(options):
    """Return the URL."""
    return options.url
'''
CONDITION = '''
"""A condition that always holds."""

from mqttjobs.domain.conditions.base import ConditionKind


class Echo(ConditionKind):
    """Holds."""

    echo: str

    def holds(self, context) -> bool:
        """See ConditionKind."""
        return True

    def describe(self, context) -> str:
        """See ConditionKind."""
        return "nothing"
'''


@pytest.fixture
def drop(tmp_path: Path) -> Iterator[Callable[[str, str], None]]:
    """Put a file into the folder of a family, as far as imports can tell; it is gone after the test."""
    dropped: list[tuple[str, str]] = []

    def put(package: str, text: str) -> None:
        folder = tmp_path / package
        folder.mkdir()
        (folder / "echo.py").write_text(dedent(text))
        importlib.import_module(package).__path__.append(str(folder))
        dropped.append((package, str(folder)))
        _forget()

    yield put
    for package, folder in dropped:
        importlib.import_module(package).__path__.remove(folder)
    _forget()


def _forget() -> None:
    importlib.invalidate_caches()
    for family in FAMILIES:
        family.forget()


def test_an_operation_type_is_one_file(drop: Callable[[str, str], None]) -> None:
    assert "echo" not in executor_types()
    drop("mqttjobs.executors.types", EXECUTOR)
    assert executor_types()["echo"].model_validate({"text": "hi"}).kind == "echo"


def test_a_request_method_is_one_file(drop: Callable[[str, str], None]) -> None:
    assert "echo/say" not in methods()
    drop("mqttjobs.service.methods", METHOD)
    assert "echo/say" in methods()


def test_a_store_is_one_file(drop: Callable[[str, str], None]) -> None:
    with pytest.raises(StoreRefused):
        create_store("echo:x")
    drop("mqttjobs.store.backends", STORE)
    assert str(create_store("echo:x")) == "echo:x"


def test_a_transport_is_one_file(drop: Callable[[str, str], None]) -> None:
    with pytest.raises(TransportError):
        create_transport(ConnectOptions(url="echo://x"))
    drop("mqttjobs.transport.backends", TRANSPORT)
    assert str(create_transport(ConnectOptions(url="echo://x"))) == "echo://x"


def test_a_condition_is_one_file(drop: Callable[[str, str], None]) -> None:
    assert "echo" not in condition_kinds()
    drop("mqttjobs.domain.conditions", CONDITION)
    assert "echo" in condition_kinds()


@pytest.mark.parametrize(
    "package",
    [
        "mqttjobs.executors.types",
        "mqttjobs.service.methods",
        "mqttjobs.store.backends",
        "mqttjobs.transport.backends",
        "mqttjobs.domain.conditions",
    ],
)
def test_the_registry_finds_every_file_of_a_family_and_no_more(package: str) -> None:
    folder = SOURCE.joinpath(*package.split(".")[1:])
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    files |= {path.parent.name for path in folder.glob("*/__init__.py")}
    assert {module.__name__ for module in folder_modules(package)} == {f"{package}.{name}" for name in files}
