"""`${ENV:NAME}` and `${FILE:path}`: looked up once, and never written to records, documents or logs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mqttjobs.config.yaml12 import Document, KeyPath
from mqttjobs.domain.model import Json
from mqttjobs.domain.templates import reveal_all, secret_names, secret_reference

SHORTEST_HIDDEN = 4


class Secrets:
    """The texts behind the names that a configuration uses."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self._known: dict[str, str] = {}

    def reveal(self, name: str) -> str:
        """Return the text behind a name that was looked up at load; an unknown name is returned as `${name}`."""
        return self._known.get(name, secret_reference(name))

    def check(self, value: Json, document: Document, key_path: KeyPath) -> None:
        """Look up every name in a value; a missing one is a problem of the document."""
        if isinstance(value, str):
            for name in secret_names(value) if "${" in value else ():
                self._look_up(name, document, key_path)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                self.check(item, document, (*key_path, key))
        elif isinstance(value, list):
            for number, item in enumerate(value):
                self.check(item, document, (*key_path, number))

    def revealed(self, value: Json) -> Json:
        """Return a value with every `${…}` in it replaced."""
        return reveal_all(value, self.reveal)

    def kept_out(self, message: str) -> str:
        """Return a message with every secret replaced by its `${…}`. Very short secrets stay: they reveal nothing."""
        for name, text in sorted(self._known.items(), key=lambda each: -len(each[1])):
            if len(text) >= SHORTEST_HIDDEN:
                message = message.replace(text, secret_reference(name))
        return message

    def _look_up(self, name: str, document: Document, key_path: KeyPath) -> None:
        if name in self._known:
            return
        kind, _, what = name.partition(":")
        try:
            text = self._environ[what] if kind == "ENV" else self._read(what)
            text.encode()
        except KeyError:
            document.wrong(key_path, f"the environment has no variable {what}")
        except UnicodeError:
            document.wrong(key_path, f"what ${{{name}}} stands for is not UTF-8")
        except (OSError, ValueError):
            document.wrong(key_path, f"the file {what} cannot be read")
        else:
            self._known[name] = text

    def _read(self, path: str) -> str:
        return (self._folder / path).read_text(encoding="utf-8").rstrip("\r\n")
