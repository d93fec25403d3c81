"""The plugin interface is `mqttjobs.plugins`: it is what the documentation lists, and all that the examples import."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mqttjobs
from mqttjobs import plugins
from tests.installed import ROOT
from tests.plugins.examples import PAGE
from tests.transcripts import blocks, documents

SECTION = re.compile(r"^## What a plugin may import\n(.*?)^## ", re.MULTILINE | re.DOTALL)
EXAMPLES = [
    (f"{document.relative_to(ROOT)}:{block.line}", block.text)
    for document in documents(ROOT)
    for block in blocks(document)
    if block.language == "python"
]


def imported(source: str) -> Iterator[str]:
    """Yield every name of mqttjobs that a source imports, whole."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.split(".")[0] == "mqttjobs")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mqttjobs":
            yield from (f"{node.module}.{each.name}" for each in node.names)


def test_the_documentation_lists_the_interface_and_nothing_else() -> None:
    section = SECTION.search(PAGE.read_text())
    assert section is not None
    rows = [line for line in section[1].splitlines() if line.startswith("| ") and not line.startswith("| for")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(plugins.__all__)


def test_the_interface_has_what_it_names_and_names_what_it_has() -> None:
    named = {name for name in vars(plugins) if not name.startswith("_")} - {"annotations"}
    assert named == set(plugins.__all__)


@pytest.mark.parametrize("source", [text for _, text in EXAMPLES], ids=[where for where, _ in EXAMPLES])
def test_an_example_imports_nothing_else_of_mqttjobs(source: str) -> None:
    assert {name for name in imported(source) if name.rpartition(".")[0] != "mqttjobs.plugins"} == set()
    assert {name.rpartition(".")[2] for name in imported(source)} <= set(plugins.__all__)


def test_mqttjobs_itself_does_not_use_the_interface() -> None:
    for path in Path(mqttjobs.__file__).parent.rglob("*.py"):
        assert not any(name.startswith("mqttjobs.plugins") for name in imported(path.read_text())), path
