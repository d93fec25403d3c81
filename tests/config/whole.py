"""One good configuration in which everything is written, and ways to change it."""

from __future__ import annotations

import copy
from typing import Any

WHOLE: dict[str, Any] = {
    "mqtt": {
        "url": "mqtt://u:p@h:1883",
        "username": "u",
        "password": "p",
        "client_id": "c",
        "session_expiry": "1d",
        "protocol": "auto",
        "base_topic": "mqttjobs",
        "reply_topics": ["a/#"],
        "trust_user_lanes": False,
        "tls": {"ca_file": "a", "cert_file": None, "key_file": None, "insecure": False},
    },
    "store": {
        "url": "sqlite:///x.db",
        "retention": {"completed": "1d", "failed": 5, "max_jobs": 3, "history_per_value": 1},
    },
    "service": {
        "hostname": "h",
        "concurrency": 1,
        "poll_window": "2s",
        "timeout": 60,
        "program_dirs": ["/bin"],
        "event_qos": 0,
        "inline_operations": ["mqtt"],
        "max_payload": "64KiB",
        "time_zone": "Europe/Berlin",
        "latitude": 1.5,
        "longitude": 2,
    },
    "users": {
        "alice": {"api_key": "0123456789abcdef", "permissions": ["admin"], "objects": ["lamp"], "links": ["hall"]}
    },
    "classes": {
        "room": {
            "ids": ["room_{1..3}", "x"],
            "name": "Room {{ id }}",
            "properties": {"a": 1},
            "state": {"topic": "r/{{ id }}", "value": "v", "map": {"1": "on"}, "retained": "fire", "ignore": ["x"]},
            "attributes": {"t": {"topic": "t/{{ id }}", "event": True}},
            "availability": "a/{{ id }}",
        },
    },
    "objects": {
        "lamp": {
            "name": "Lamp",
            "properties": {"p": [1]},
            "state": {"topic": "lamp", "value": "a.0"},
            "attributes": {"b": {}},
        },
        "room_1": {"state": {"value": "w"}},
        "y": {"class": "room", "availability": {"topic": "q", "value": "s", "online": "1", "offline": "0"}},
    },
    "links": {
        "hall": {"source": "lamp", "target": "x", "state": "target"},
        "own": {"source": "lamp", "target": "y", "state": {"topic": "own"}, "attributes": {"z": {"value": "z"}}},
    },
    "operations": {
        "publish": {
            "attach": [{"object": "lamp"}, {"link": "hall"}, {"class": "room"}],
            "type": "mqtt",
            "topic": "a/{{ id }}",
            "message": {"x": "{{ payload }}"},
            "qos": 1,
            "retain": False,
            "trigger_states": ["on"],
            "triggers": [{"states": ["a"], "duration": "5m", "periodicity": "1m"}, {"states": "b", "for": 5}],
            "retry": {"attempts": 2, "first": 1, "factor": 2, "max": 5},
            "mode": "queued",
            "max": 2,
            "priority": 1,
            "schedule": "0 3 * * *",
            "timeout": "5s",
            "run_as": "alice",
            "version": 1,
            "delivery": "at_least_once",
        },
        "program": {
            "attach": {"link": "own"},
            "type": "program",
            "path": "/bin/true",
            "args": ["a", "{{ id }}"],
            "env": {"A": "b"},
            "params": {"type": "object", "properties": {"to": {"type": "string", "default": "x"}}},
            "preferences": [{"key": "k", "value": 1, "description": "d"}],
        },
        "script": {"type": "script", "text": "echo", "interpreter": ["/bin/sh"], "schedule": {"every": "10m"}},
        "guarded": {
            "attach": [{"object": "lamp"}, {"link": "own"}],
            "type": "mqtt",
            "topic": "guarded",
            "triggers": [
                {"from": ["a"], "not_from": "b", "not_states": ["c"], "debounce": "1s", "throttle": 5},
                {"above": 5, "below": 9.5, "hysteresis": 1, "duration": "1m", "on_restart": "drop"},
                {"entity": "room_1", "attribute": "t", "enabled": False},
                {"silence": "1h"},
                {"at": "sunset", "offset": "-30m", "conditions": {"weekdays": ["mon"]}},
                {"states": ["on"], "conditions": [{"entity": "self", "states": ["on"]}]},
            ],
            "conditions": {
                "any": [
                    {"all": [{"entity": "lamp", "attribute": "b", "above": 1}, {"not": {"after": "22:00"}}]},
                    {"before": "sunrise", "weekdays": ["sat", "sun"]},
                ]
            },
            "confirm": {"entity": "self", "states": ["on"], "within": "5s"},
            "breaker": {"firings": 5, "within": "1s", "pause": "1m"},
            "on_failure": "script",
            "allow_loop": True,
            "record_skipped": True,
        },
    },
}


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the place of everything in a configuration."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(each for key, item in inner for each in places(item, (*place, key)))]


def changed(place: tuple[Any, ...], value: Any, *, rename: bool) -> Any:
    """Return WHOLE with something else at a place, or under another name."""
    made = copy.deepcopy(WHOLE)
    if not place:
        return value
    around = made
    for part in place[:-1]:
        around = around[part]
    if rename and isinstance(around, dict):
        around[str(value)] = around.pop(place[-1])
    else:
        around[place[-1]] = value
    return made
