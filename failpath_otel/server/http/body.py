"""A request's body, read within bounds: 4 MiB on the wire, 16 MiB after inflation, 30 s."""

from __future__ import annotations

import asyncio
import zlib
from typing import Final

from starlette.types import Receive, Scope

from failpath_otel.server.http.headers import header, speaks_otlp
from failpath_otel.server.http.problem import Problem

MAX_WIRE_BYTES: Final = 4 * 1024 * 1024
MAX_INFLATED_BYTES: Final = 16 * 1024 * 1024
MAX_GZIP_MEMBERS: Final = 64
MAX_COMMAS: Final = 2_000_000
READ_TIMEOUT_SECONDS: Final = 30.0

_GZIP: Final = frozenset({"gzip", "x-gzip"})
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


class Disconnected(Exception):  # noqa: N818 - the sender's doing, and no error
    """The sender went away, or the server stops, before the body was whole. Nobody waits for an answer."""


def is_gzip(scope: Scope) -> bool:
    """Whether the body is compressed.

    Raises:
        Problem: 415, the coding is neither gzip nor identity.
    """
    coding = (header(scope, b"content-encoding") or "").strip().lower()
    if coding in _GZIP:
        return True
    if coding in ("", "identity"):
        return False
    raise Problem(
        415,
        f"Content-Encoding {coding[:64]!r} is not supported; send gzip, or no Content-Encoding.",
        headers={"Accept-Encoding": "gzip, identity"},
    )


async def read_wire(scope: Scope, receive: Receive) -> bytes:
    """The body as it came, still compressed.

    Raises:
        Problem: 413 over 4 MiB, 408 (OTLP: 503) after 30 s, 400 where Content-Length is no length.
        Disconnected: The body is not whole and will not be.
    """
    declared = header(scope, b"content-length")
    if declared is not None and (not declared.isdecimal() or not declared.isascii()):
        raise Problem(400, f"Content-Length must be a number of bytes, got {declared[:64]!r}.")
    if declared is not None and (len(declared) > 18 or int(declared) > MAX_WIRE_BYTES):
        raise too_large(f"The body of {declared[:20]} bytes is larger than {MAX_WIRE_BYTES} bytes")
    try:
        return await asyncio.wait_for(_read(receive), READ_TIMEOUT_SECONDS)
    except asyncio.TimeoutError:
        late = f"The body did not arrive within {READ_TIMEOUT_SECONDS:.0f} s."
        if speaks_otlp(scope["path"]):
            # A Collector that was suspended in the middle of a request would drop the batch at a 408; a 503 has it sent again.
            raise Problem.busy(late, 1.0) from None
        raise Problem(408, late) from None


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Disconnected
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_WIRE_BYTES:
            raise too_large(f"The body is larger than {MAX_WIRE_BYTES} bytes")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def inflate(raw: bytes, limit: int = MAX_INFLATED_BYTES) -> bytes:
    """The content of a gzip body, of one or several members. Never holds more than ``limit`` bytes of it.

    Raises:
        Problem: 400 where it is corrupt or cut short, 413 where it inflates to more than ``limit`` bytes.
    """
    parts: list[bytes] = []
    room = limit
    while raw or not parts:
        if len(parts) == MAX_GZIP_MEMBERS:
            # Each member costs a copy of what follows it.
            raise Problem(400, f"The gzip body has more than {MAX_GZIP_MEMBERS} members. Compress it as one.")
        member = zlib.decompressobj(_GZIP_WINDOW)
        try:
            part = member.decompress(raw, room + 1)
        except zlib.error as error:
            raise Problem(400, f"The gzip body is corrupt: {error}. Send it again, or without Content-Encoding.") from None
        if len(part) > room:
            raise too_large(f"The body, inflated, is larger than {limit} bytes")
        if not member.eof:
            raise Problem(400, "The gzip body is cut short. Send it again, or without Content-Encoding.")
        parts.append(part)
        room -= len(part)
        # Zero bytes may pad the end of a gzip file.
        raw = member.unused_data.lstrip(b"\0")
    return b"".join(parts)


def check_commas(body: bytes) -> None:
    """Refuses JSON whose values would take many times the memory that the body takes.

    Raises:
        Problem: 413, more than two million values.
    """
    if len(body) > MAX_COMMAS and body.count(b",") > MAX_COMMAS:
        raise too_large(f"The body has more than {MAX_COMMAS} values")


def too_large(what: str) -> Problem:
    """A 413 that says how to do better."""
    return Problem(413, f"{what}. Send fewer items in one request.")
