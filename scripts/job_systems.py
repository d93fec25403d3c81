"""Writes the last column of docs/job-systems.md: the tests that prove a row name it with the marker `proves`.

`@pytest.mark.proves("operations", "description.stdout")` stands on a test that proves the row `description.stdout` of
the section whose comment says `<!-- proves: operations -->`. A row is named by its first cell without backticks.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parents[1] / "tests"
_SECTION = re.compile(r"<!-- proves: (\w+) -->")


class Row(NamedTuple):
    """A row's name: its section, and its first cell without backticks."""

    section: str
    cell: str


def proofs() -> dict[Row, list[str]]:
    """Return the tests (`module::test`) that prove each row, in the order of the files."""
    found: dict[Row, list[str]] = {}
    for file in sorted(TESTS.rglob("test_*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for row in _marks(node):
                    found.setdefault(row, []).append(f"{file.relative_to(TESTS)}::{node.name}")
    return found


def _marks(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Row]:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.proves":
            section, *cells = (ast.literal_eval(each) for each in decorator.args)
            yield from (Row(section, cell) for cell in cells)


def rows(page: str) -> Iterator[tuple[int, Row, list[str]]]:
    """Yield each row of the page's tables: the number of its line, its name and its cells."""
    section = ""
    in_table = False
    for number, line in enumerate(page.splitlines()):
        found = _SECTION.search(line)
        section = found[1] if found else section
        if in_table and line.startswith("|"):
            cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
            yield number, Row(section, cells[0].replace("`", "")), cells
        in_table = line.startswith("|---") or (in_table and line.startswith("|"))


def with_proofs(page: str) -> str:
    """Return the page with the tests of each row in its last cell.

    Raises:
        ValueError: two rows have one name, a row has no test, or a test names a row that is not there.
    """
    tests = proofs()
    lines = page.splitlines()
    named: set[Row] = set()
    for number, row, cells in rows(page):
        if row in named:
            raise ValueError(f"two rows are called {row.cell!r} in the section {row.section}")
        if row not in tests:
            raise ValueError(f"no test proves {row.cell!r} of the section {row.section}: mark one with `proves`")
        named.add(row)
        lines[number] = f"| {' | '.join([*cells[:-1], '<br>'.join(f'`{test}`' for test in tests[row])])} |"
    unknown = sorted(tests.keys() - named)
    if unknown:
        raise ValueError(f"a test proves {unknown[0].cell!r} of {unknown[0].section}, and there is no such row")
    return "\n".join(lines) + "\n"
