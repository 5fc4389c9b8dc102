"""Text, ids and keys made safe for the wire: no lone surrogates, bounded length."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from typing import Final

from failpath_otel import clock
from failpath_otel.interruption import is_interruption

MAX_ID_CHARS: Final = 512
"""The longest run id, flow slug or step key, in characters."""
MAX_TEXT_BYTES: Final = 16 * 1024
"""The longest string within an event, in UTF-8 bytes."""

_HASH_CHARS: Final = 17  # "~" and 16 hexadecimal digits


def scrub(text: str) -> str:
    """``text`` with lone surrogates replaced by U+FFFD, which UTF-8 and so every wire can carry."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # Pairs of surrogates become the character they stand for, lone ones U+FFFD.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def clip(text: str, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """``text`` scrubbed and, over ``max_bytes``, cut with a mark that says how much is missing."""
    length = len(text)
    # A character has at least a byte: of a text of many megabytes only the beginning is looked at.
    text = scrub(text if length <= max_bytes else text[:max_bytes])
    if length * 4 <= max_bytes:
        return text
    raw = text.encode()
    if length <= max_bytes and len(raw) <= max_bytes:
        return text
    kept = raw[: max(0, max_bytes - 40)].decode(errors="ignore")
    return f"{kept}… [cut {length - len(kept)} characters]"


def clip_middle(text: str, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Like `clip`, but keeps both ends: of a traceback the entry and the place of the failure matter most."""
    text = scrub(text)
    raw = text.encode()
    if len(raw) <= max_bytes:
        return text
    room = max(0, max_bytes - 48)
    head = raw[: room // 4].decode(errors="ignore")
    tail = raw[len(raw) - (room - room // 4) :].decode(errors="ignore")
    return f"{head}\n… [cut {len(text) - len(head) - len(tail)} characters]\n{tail}"


def identifier(value: object) -> str:
    """A flow slug, run id or step key as text.

    Other types are taken as ``str(value)``; a value whose ``__str__`` raises becomes its type's name. Lone surrogates
    become U+FFFD. Over 512 characters the text is cut and ends in a hash of the whole, so that different ids stay different.
    """
    if isinstance(value, str):
        text = str.__str__(value)  # of an enum that is text, its value
    elif value is None:
        text = ""
    else:
        text = as_text(value)
    text = scrub(text)
    if len(text) <= MAX_ID_CHARS:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[: _HASH_CHARS - 1]
    return f"{text[: MAX_ID_CHARS - _HASH_CHARS]}~{digest}"


def as_text(value: object) -> str:
    """``str(value)``, or the type's name where that raises."""
    try:
        return str(value)
    except Exception as error:
        if is_interruption(error):
            raise
        return f"<{type(value).__name__}: str() failed>"


def new_run_id() -> str:
    """A run id that sorts by time of creation and cannot be guessed.

    A UUID version 7 (RFC 9562): 48 bits of milliseconds, 12 bits of the fraction below (section 6.2, method 3), 62 random
    bits from the operating system.
    """
    millis, below = divmod(clock.time_ns(), 1_000_000)
    fraction = below * 4096 // 1_000_000
    tail = secrets.randbits(62)
    return str(uuid.UUID(int=millis << 80 | 7 << 76 | fraction << 64 | 2 << 62 | tail))
