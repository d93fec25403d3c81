"""README and docs/ are true: their configurations are valid, and their sessions run and print what is written."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mqttjobs.config import load
from mqttjobs.config.schema import configuration_schema
from mqttjobs.errors import ConfigError
from tests.brokers import StartMosquitto
from tests.transcripts import Block, Terminal, blocks, documents

ROOT = Path(__file__).parents[2]
DOCUMENTS = [str(each.relative_to(ROOT)) for each in documents(ROOT)]
TUTORIAL = "README.md"
SECRET = "a-made-up-secret-of-some-length"  # noqa: S105 - as it says
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)")


def configurations() -> Iterator[tuple[str, Block]]:
    """Yield every configuration with its place; those that need a plugin are tested by the sessions beside them."""
    for document in DOCUMENTS:
        found = blocks(ROOT / document)
        if not any(block.language == "toml" for block in found):
            yield from ((f"{document}:{block.line}", block) for block in found if block.language == "yaml")


@pytest.mark.parametrize(("where", "block"), list(configurations()), ids=[where for where, _ in configurations()])
def test_every_configuration_in_the_documentation_is_valid(
    where: str, block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A configuration with a file name that begins with `wrong` may have problems, which a session shows."""
    for name in re.findall(r"\$\{ENV:(\w+)\}", block.text):
        monkeypatch.setenv(name, SECRET)
    for name in re.findall(r"\$\{FILE:([^}]+)\}", block.text):
        (tmp_path / name).write_text(SECRET)
    file = tmp_path / "config.yaml"
    file.write_text(block.text)
    try:
        load(file)
    except ConfigError as error:
        if not (block.file_name or "").startswith("wrong"):
            pytest.fail("\n".join([where, *map(str, error.problems)]), pytrace=False)


@pytest.fixture
def terminal(tmp_path: Path, start_mosquitto: StartMosquitto) -> Iterator[Callable[[], Terminal]]:
    made: list[Terminal] = []

    def make() -> Terminal:
        made.append(Terminal(tmp_path / "work", start_mosquitto().port))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.slow
@pytest.mark.mosquitto
@pytest.mark.parametrize("document", [each for each in DOCUMENTS if "```console" in (ROOT / each).read_text()])
def test_every_session_in_the_documentation_prints_what_is_written(
    document: str, terminal: Callable[[], Terminal]
) -> None:
    """A document that sends requests and starts no service is about the service of the tutorial."""
    here = terminal()
    for source in (TUTORIAL, document):
        for block in blocks(ROOT / source):
            if block.file_name is not None and block.language != "console":
                here.write(block.file_name, block.text)
                install(here, block)
    sessions = [block for block in blocks(ROOT / document) if block.language == "console"]
    commands = [command for block in sessions for command, _ in block.steps()]
    starts = any(command.startswith("./scripts/run run ") for command in commands)
    if not starts and any("request/" in command for command in commands):
        here.play_service("hall.yaml")
    for block in sessions:
        here.play(block, f"{document}:{block.line}")


def install(here: Terminal, block: Block) -> None:
    """Install a plugin of the documentation as pip would: write its entry points into the folder."""
    if block.language != "toml":
        return
    project = tomllib.loads(block.text)["project"]
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {module}" for name, module in entries.items()))
    ]
    folder = f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    here.write(f"{folder}/entry_points.txt", "\n".join(lines) + "\n")
    here.write(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")


def test_every_class_in_the_documentation_is_an_operation_type() -> None:
    kinds = []
    for document in DOCUMENTS:
        for block in blocks(ROOT / document):
            if block.language == "python":
                defined: dict[str, Any] = {"__name__": f"{document}:{block.line}"}
                exec(compile(block.text, defined["__name__"], "exec"), defined)  # noqa: S102 - our own documentation
                kinds += [each.kind for each in defined.values() if isinstance(each, type) and "kind" in vars(each)]
    assert kinds == ["pause", "wake"]


def keys() -> Iterator[tuple[str, str]]:
    """Yield every key of the configuration, as (part of the JSON Schema, key)."""
    definitions = configuration_schema()["$defs"]
    for kind in definitions.pop("operation")["oneOf"]:
        yield from ((kind["title"], key) for key in kind["properties"])
    for name, definition in definitions.items():
        yield from ((name, key) for key in definition.get("properties", ()))


def test_every_key_is_in_the_configuration_reference() -> None:
    prose = re.sub(r"```.*?```", "", (ROOT / "docs/configuration.md").read_text(), flags=re.DOTALL)
    documented = {word for code in re.findall(r"`([^`]+)`", prose) for word in re.findall(r"\w+", code)}
    assert [f"{section}: {key}" for section, key in keys() if key not in documented] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_in_the_documentation_leads_somewhere(document: str) -> None:
    file = ROOT / document
    for target, _ in _LINK.findall(file.read_text()):
        assert not target or (file.parent / target).exists(), f"{document} links to {target}"
