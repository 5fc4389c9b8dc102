"""The token of a step that ends elsewhere: which attempt it is, as text that fits into a message or an address."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

import msgspec

from failpath_otel.events.text import MAX_ID_CHARS

_PREFIX: Final = "fp1."
_MAX_CHARS: Final = 16_384
_TRACE: Final = re.compile(r"(?!0{32})[0-9a-f]{32}")
_SPAN: Final = re.compile(r"(?!0{16})[0-9a-f]{16}")


class CompletionToken(msgspec.Struct, frozen=True, array_like=True):
    """An attempt that another process will end.

    Attributes:
        started_at: Nanoseconds since the Unix epoch.
    """

    flow_key: str
    run_id: str
    step_key: str
    trace_id: str
    span_id: str
    started_at: int


def encode_token(completion: CompletionToken) -> str:
    """``completion`` as text of letters, digits and ``.-_``, with the version of its form in front."""
    return _PREFIX + base64.urlsafe_b64encode(msgspec.json.encode(completion)).rstrip(b"=").decode()


def decode_token(token: object) -> CompletionToken | None:
    """What a token says; ``None`` where it is none. It is not signed: who has one may end that step, and no more."""
    if not isinstance(token, str) or not token.startswith(_PREFIX) or len(token) > _MAX_CHARS:
        return None
    body = token[len(_PREFIX) :]
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        completion = msgspec.json.decode(raw, type=CompletionToken)
    except (ValueError, binascii.Error, msgspec.DecodeError):
        return None
    ids = (completion.flow_key, completion.run_id, completion.step_key)
    sound = all(0 < len(value) <= MAX_ID_CHARS for value in ids) and 0 < completion.started_at < 2**63
    return completion if sound and _TRACE.fullmatch(completion.trace_id) and _SPAN.fullmatch(completion.span_id) else None
