"""Writes what docs/ takes from the code, between `<!-- NAME: by scripts/docs -->` and `<!-- /NAME -->`."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from configuration_tables import TABLES
from job_systems import with_proofs

from mqttjobs.service.api.request import methods

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mqttjobs"
LAYERS = ("cli", "config", "service", "agent", "executors", "store", "transport", "domain")
"""The packages from the top down; the modules beside them are below all of them."""
WIDTH = 22
_CLAUSE = re.compile(r" \((contract|behaviour|seeds)[^)]*\)")


def role(file: Path) -> str:
    """Return a module's role: the first line of its docstring, without the clause of the specification."""
    text = ast.get_docstring(ast.parse(file.read_text())) or ""
    return _CLAUSE.sub("", text.partition("\n")[0]).rstrip(".:")


def listing(folder: Path, depth: int) -> Iterator[str]:
    """Yield the lines of a folder: its modules, then its folders."""
    indent = "  " * depth
    for file in sorted(folder.glob("*.py")):
        if file.name != "__init__.py":
            yield f"{indent}{file.name:<{WIDTH}} {role(file)}"
    for inner in sorted(each for each in folder.iterdir() if (each / "__init__.py").exists()):
        yield f"{indent}{inner.name + '/':<{WIDTH}} {role(inner / '__init__.py')}"
        yield from listing(inner, depth + 1)
    for schema in sorted(folder.glob("schema/*.sql")):
        yield f"{indent}{schema.relative_to(folder).as_posix()}"


def tree() -> str:
    """Return the tree of the package."""
    lines = ["mqttjobs/"]
    for name in LAYERS:
        folder = PACKAGE / name
        if folder.exists():
            lines.append(f"  {name + '/':<{WIDTH}} {role(folder / '__init__.py')}")
            lines += listing(folder, 2)
    lines += [f"  {file.name:<{WIDTH}} {role(file)}" for file in sorted(PACKAGE.glob("*.py"))]
    return "\n".join(["```", *lines, "```"])


def table_of_methods() -> str:
    """Return every method with its parameters and permissions."""
    lines = ["| method | parameters | permission |", "|---|---|---|"]
    for name, method in methods().items():
        fields = method.params.model_fields
        parameters = ", ".join(f"**{key}**" if field.is_required() else key for key, field in fields.items())
        lines.append(f"| `{name}` | {parameters} | {' or '.join(f'`{each}`' for each in method.permissions)} |")
    return "\n".join(lines)


WRITTEN: dict[str, Callable[[str], str]] = {
    "docs/architecture.md": lambda page: with_parts(page, {"tree": tree}),
    "docs/configuration.md": lambda page: with_parts(page, TABLES),
    "docs/requests.md": lambda page: with_parts(page, {"methods": table_of_methods}),
    "docs/job-systems.md": with_proofs,
}
"""Each page, and what makes it as it should be of it as it is."""


def with_parts(page: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """Return a page with its generated parts as they are now."""
    for part, make in parts.items():
        head, tail = f"<!-- {part}: by scripts/docs -->", f"<!-- /{part} -->"
        start, end = page.index(head) + len(head), page.index(tail)
        page = f"{page[:start]}\n{make()}\n{page[end:]}"
    return page


def main() -> int:
    """Write the pages, or with --check report those that are behind the code."""
    only_check = "--check" in sys.argv[1:]
    behind = []
    for name, rewrite in WRITTEN.items():
        file = ROOT / name
        before = file.read_text()
        after = rewrite(before)
        if after != before:
            behind.append(name)
            if not only_check:
                file.write_text(after)
    for name in behind:
        print(f"{name} is behind the code: run scripts/docs" if only_check else f"{name} is written anew")
    return 1 if behind and only_check else 0


if __name__ == "__main__":
    sys.exit(main())
