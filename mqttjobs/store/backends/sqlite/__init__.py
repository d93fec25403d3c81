"""SQLite: durable records in one file."""

from __future__ import annotations

from mqttjobs.store.backends.sqlite.store import create

__all__ = ["create"]
