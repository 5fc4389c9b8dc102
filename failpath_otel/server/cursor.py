"""The opaque mark at which a list of runs goes on."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from failpath_otel.errors import FailpathError

_SHAPE: Final = re.compile(r"(-?\d{1,18}):(\d{1,18})", re.ASCII)


class BadQuery(FailpathError, ValueError):  # noqa: N818 - named for what the caller is told
    """A parameter of a read that cannot be used; the message names it, its value and the way out."""


def encode_cursor(started_us: int, run_row_id: int) -> str:
    """The mark after this run."""
    return base64.urlsafe_b64encode(f"{started_us}:{run_row_id}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[int, int]:
    """Start and row id of the last run before the mark.

    Raises:
        BadQuery: No answer ever gave this cursor.
    """
    try:
        plain = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode("ascii")
    except (UnicodeError, binascii.Error, ValueError):
        plain = ""
    match = _SHAPE.fullmatch(plain)
    if match is None:
        raise BadQuery(
            f"cursor must be a nextCursor of an earlier answer, got {cursor[:100]!r}; leave it out to begin at the newest"
        )
    return int(match[1]), int(match[2])
