"""Signatures of agent messages: HMAC-SHA256 with the shared key over the rest of the message (contract 6).

The signed bytes are the message without its `signature`, as JSON in one canonical form: keys sorted, no white space,
UTF-8, numbers as Python writes them. In Python that is ``json.dumps(rest, sort_keys=True, separators=(",", ":"),
ensure_ascii=False)``; the signature is its HMAC in lower-case hexadecimal.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping

from mqttjobs.domain.model import Json
from mqttjobs.errors import ReportError

FIELD = "signature"


def canonical(body: Mapping[str, Json]) -> bytes:
    """Return the signed bytes of a message: its canonical JSON without the signature."""
    rest = {name: value for name, value in body.items() if name != FIELD}
    return json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=dict).encode()


def signature_of(body: Mapping[str, Json], key: str) -> str:
    """Return the signature that belongs to a message."""
    return hmac.new(key.encode(), canonical(body), hashlib.sha256).hexdigest()


def signed(body: Mapping[str, Json], key: str) -> dict[str, Json]:
    """Return a message with its signature."""
    return {**body, FIELD: signature_of(body, key)}


def check_signature(body: Mapping[str, Json], key: str) -> None:
    """Check that a message was signed with `key`.

    Raises:
        ReportError: with the reason `unsigned` or `forged`.
    """
    given = body.get(FIELD)
    if not isinstance(given, str) or not given:
        raise ReportError("the message is not signed", reason="unsigned")
    if not hmac.compare_digest(given.encode(errors="surrogatepass"), signature_of(body, key).encode()):
        raise ReportError("the signature does not belong to the message and our key", reason="forged")
