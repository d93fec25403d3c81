"""Agents for people: a table, one agent in full, and a live list."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Self

import pytest
from rich.console import Console

from mqttjobs.cli.access import Access
from mqttjobs.cli.agent_views import agent_detail, agent_table, follow

AGENT: dict[str, Any] = {
    "hostname": "web1",
    "state": "draining",
    "labels": {"site": "b", "group": "web\x1b[31m"},
    "version": "1.0",
    "running": 2,
    "max_jobs": 8,
    "facts": {"load": 0.25, "python": "3.11.7"},
    "last_seen": "2026-11-22T08:00:00.123Z",
}


def drawn(thing: Any) -> str:
    console = Console(width=160, record=True, file=None, color_system=None)
    with console.capture() as caught:
        console.print(thing)
    return caught.get()


def test_a_table_has_a_line_for_each_agent() -> None:
    text = drawn(agent_table([AGENT, {"hostname": "web2"}]))
    assert "draining" in text
    assert "2/8" in text
    assert "group=web\\x1b[31m, site=b" in text
    assert len([line for line in text.splitlines() if "web" in line]) == 2


def test_an_agent_in_full_has_its_facts() -> None:
    text = drawn(agent_detail(AGENT))
    for part in ("web1", "2 of 8", "3.11.7", "0.25"):
        assert part in text


async def test_a_live_list_in_a_pipe_prints_what_has_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [{"items": [AGENT]}, {"items": [AGENT]}, {"items": []}]

    class Answering:
        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        async def ask(self, method: str, params: Any) -> Any:
            assert method == "agents/list"
            if not answers:
                raise asyncio.CancelledError
            return answers.pop(0)

    monkeypatch.setattr("mqttjobs.cli.agent_views.connected", lambda _: Answering())
    monkeypatch.setattr("mqttjobs.cli.agent_views.PAUSE_S", 0)
    with pytest.raises(asyncio.CancelledError):
        await follow(Access(as_json=True), {})
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"items": [AGENT]}, {"items": []}]
