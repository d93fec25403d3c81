"""Plugins of installed packages that cannot be used, as `check` and the start of the service report them."""

from __future__ import annotations

from typing import Any

from mqttjobs.domain.conditions.base import CONDITIONS
from mqttjobs.domain.triggers.base import TRIGGER_KEYS
from mqttjobs.executors.base import EXECUTORS
from mqttjobs.registry import Family, PluginProblem
from mqttjobs.service.api.request import METHODS
from mqttjobs.store.base import STORES
from mqttjobs.transport.base import TRANSPORTS

FAMILIES: tuple[Family[Any], ...] = (EXECUTORS, CONDITIONS, TRIGGER_KEYS, STORES, TRANSPORTS, METHODS)


def plugin_problems() -> list[PluginProblem]:
    """Return why plugins are not used, over all families."""
    return [problem for family in FAMILIES for problem in family.problems()]
