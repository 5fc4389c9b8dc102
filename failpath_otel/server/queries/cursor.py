"""The opaque mark at which a list of runs goes on."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

import msgspec

from failpath_otel.errors import FailpathError

_SHAPE: Final = re.compile(r"(?:([a-z]):)?(-?\d{1,18}):(\d{1,18})", re.ASCII)


class BadQuery(FailpathError, ValueError):  # noqa: N818 - named for what it means to the caller
    """A parameter of a read that cannot be used; the message names it, its value and the way out."""


class Cursor(msgspec.Struct, frozen=True):
    """Goes on after the run with this start (microseconds) and row id.

    ``phase`` says in which part of a search for text; it is empty in every other list.
    """

    place: tuple[int, int]
    phase: str = ""


def encode_cursor(cursor: Cursor) -> str:
    """The mark as the API gives it."""
    head = f"{cursor.phase}:" if cursor.phase else ""
    started_us, run_row_id = cursor.place
    return base64.urlsafe_b64encode(f"{head}{started_us}:{run_row_id}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str, phases: str = "") -> Cursor:
    """A mark that `encode_cursor` gave; ``phases`` are those that this list knows, where it is a search for text.

    Raises:
        BadQuery: No answer ever gave this cursor, or one of another list did.
    """
    try:
        plain = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode("ascii")
    except (UnicodeError, binascii.Error, ValueError):
        plain = ""
    match = _SHAPE.fullmatch(plain)
    if match is None or (match[1] or "-") not in (phases or "-"):
        raise BadQuery(
            f"cursor must be a nextCursor of an earlier answer to the same question, got {cursor[:100]!r}; "
            "leave it out to begin at the newest"
        )
    return Cursor((int(match[2]), int(match[3])), match[1] or "")
