"""What names look like: ids, the names and labels of agents, and the keys of preferences."""

from __future__ import annotations

import re

ID = "[A-Za-z0-9_-]{1,64}"
"""The pattern of an id (contract 2)."""
NAME = "[A-Za-z0-9_.-]{1,64}"
"""The pattern of the name of an agent, of a label, or of a preference: an id that may have dots."""
LABEL_VALUE = "[A-Za-z0-9_.-]{1,128}"
"""The pattern of the value of a label."""
HOSTNAME = "[A-Za-z0-9.-][A-Za-z0-9_.-]{0,63}"
"""The pattern of a hostname as a target: a name that cannot be taken for `_local`, `_any` or `_all` (contract 6)."""

_ID = re.compile(ID)
_HOSTNAME = re.compile(HOSTNAME)


def is_id(text: str) -> bool:
    """Whether a text is an id."""
    return _ID.fullmatch(text) is not None


def is_hostname(text: str) -> bool:
    """Whether a text is a hostname that can be a target."""
    return _HOSTNAME.fullmatch(text) is not None
