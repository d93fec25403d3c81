"""SQLite: durable records in one file."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from mqttjobs.store.backends.sqlite.store import SqliteStore
from mqttjobs.store.base import EXAMPLE

SCHEMES = frozenset({"sqlite"})


def resolve_url(url: str, folder: Path) -> str:
    """Return the URL with an absolute path: `sqlite:///file` begins at `folder`, `sqlite:////file` at the root."""
    parts = urlsplit(url)
    path = unquote(parts.path).removeprefix("/")
    if parts.netloc or not parts.path.startswith("/") or not path:
        raise ValueError(f"must be like {EXAMPLE}")
    return f"sqlite:///{quote(str(folder / path))}"


def create(url: str) -> SqliteStore:
    """Return the store of `sqlite:///relative/path` or `sqlite:////absolute/path`."""
    return SqliteStore(Path(unquote(urlsplit(url).path).removeprefix("/")))
