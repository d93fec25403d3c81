"""What holds of the code as a whole, beyond what ruff and import-linter say."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import mqttjobs
from mqttjobs.config.plugins import FAMILIES
from mqttjobs.registry import Family, folder_modules

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


# -- plugins ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES, ids=[family.folder for family in FAMILIES])
def test_the_registry_finds_every_file_of_a_family_and_no_more(family: Family[Any]) -> None:
    folder = SOURCE.joinpath(*family.folder.split(".")[1:])
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    files |= {path.parent.name for path in folder.glob("*/__init__.py")}
    assert {module.__name__ for module in folder_modules(family.folder)} == {
        f"{family.folder}.{name}" for name in files
    }
