"""What the contract suites run over: mqttjobs's own plugins, or those that the options of pytest name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mqttjobs.store.base import Store, create_store, resolve_store_url
from tests.brokers import MosquittoBroker
from tests.contracts.fixtures import Bench, EmbeddedBench, MemoryBench, MosquittoBench

STORES = {"sqlite": "sqlite:///jobs.db", "memory": "memory:"}
"""The URLs of mqttjobs's own stores, relative to the folder of a test."""
BENCHES = ("memory", "mosquitto-5", "mosquitto-3.1.1", "amqtt-3.1.1")
"""The brokers of mqttjobs's own transports, and the protocol that each is spoken to in."""
OPERATIONS: Mapping[str, Mapping[str, Any]] = {
    "mqtt": {"type": "mqtt", "topic": "home/{{ id }}/set", "message": {"state": "{{ state }}"}},
    "program": {"type": "program", "path": sys.executable, "args": ["-c", "print(1)", "{{ name }}"]},
    "script": {"type": "script", "text": "exit 0"},
}
"""An operation of each of mqttjobs's own types."""


def a_store(url: str, folder: Path) -> Store:
    """Return the store of a URL in a folder, which `{folder}` in the URL stands for too; it is not opened yet."""
    return create_store(resolve_store_url(url.replace("{folder}", str(folder)), folder))


def a_bench(name: str, start_mosquitto: Callable[[], Callable[..., MosquittoBroker]], folder: Path) -> Bench:
    """Return one of BENCHES, or one of the class that `module:Class` names; it is not opened yet."""
    kind, _, protocol = name.partition("-")
    if kind == "memory":
        return MemoryBench()
    if kind == "mosquitto":
        return MosquittoBench(start_mosquitto(), folder, protocol)
    if kind == "amqtt":
        return EmbeddedBench()
    module, _, attribute = name.partition(":")
    made: Bench = getattr(importlib.import_module(module), attribute)()
    return made
