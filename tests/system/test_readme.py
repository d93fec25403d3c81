"""What README and docs/ say is so: their configurations are good, their sessions run and print what is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brokers import StartMosquitto
from transcripts import Terminal, blocks, documents

from mqttjobs.config import load
from mqttjobs.errors import ConfigError

ROOT = Path(__file__).parents[2]
DOCUMENTS = [str(each.relative_to(ROOT)) for each in documents(ROOT)]
ENVIRONMENT = re.compile(r"\$\{ENV:(\w+)\}")
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)")
TUTORIAL = "README.md"


def configurations() -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        for block in blocks(ROOT / document):
            if block.language == "yaml":
                yield f"{document}:{block.line}", block.text


@pytest.mark.parametrize(("where", "text"), list(configurations()), ids=[where for where, _ in configurations()])
def test_every_configuration_in_the_documentation_is_good(
    where: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ENVIRONMENT.findall(text):
        monkeypatch.setenv(name, "a-made-up-secret-of-some-length")
    for name in re.findall(r"\$\{FILE:([^}]+)\}", text):
        (tmp_path / name).write_text("a-made-up-secret-of-some-length")
    file = tmp_path / "config.yaml"
    file.write_text(text)
    try:
        load(file)
    except ConfigError as error:
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


@pytest.mark.mosquitto
@pytest.mark.parametrize("document", [each for each in DOCUMENTS if "```console" in (ROOT / each).read_text()])
def test_every_session_in_the_documentation_prints_what_is_written(
    document: str, terminal: Callable[[], Terminal]
) -> None:
    """A document that starts no service itself is about the one of the tutorial."""
    here = terminal()
    for source in (TUTORIAL, document):
        for block in blocks(ROOT / source):
            if block.file_name is not None and block.language != "console":
                here.write(block.file_name, block.text)
    sessions = [block for block in blocks(ROOT / document) if block.language == "console"]
    if not any(command.startswith("./scripts/run run ") for each in sessions for command, _ in each.steps()):
        here.play_service("hall.yaml")
    for block in sessions:
        here.play(block, f"{document}:{block.line}")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_in_the_documentation_leads_somewhere(document: str) -> None:
    file = ROOT / document
    for target, _ in _LINK.findall(file.read_text()):
        assert not target or (file.parent / target).exists(), f"{document} links to {target}"
