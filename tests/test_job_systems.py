"""docs/job-systems.md names a test for each field of the four systems; each of them is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "job-systems.md"
_NAMED = re.compile(r"`([a-z/_]+\.py)::(test_[a-z0-9_]+)`")


def rows() -> list[str]:
    """Return the lines of the page's tables, without their heads."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return [line for line in lines if not line.startswith(("|---", "| there", "| what |"))]


def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_row_names_a_test_that_there_is() -> None:
    assert len(rows()) > 100
    missing = []
    for row in rows():
        named = _NAMED.findall(row)
        assert len(named) == 1, row
        file, name = named[0]
        if not (ROOT / "tests" / file).exists() or name not in functions_of(file):
            missing.append(f"{file}::{name}")
    assert missing == []
