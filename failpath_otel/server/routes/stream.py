"""Changes as server-sent events: an id per change, resumption, heartbeats, an end with the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import StreamingResponse

from failpath_otel.server.api.runs import Change
from failpath_otel.server.http.problem import Problem
from failpath_otel.server.http.shutdown import Lifetime
from failpath_otel.server.store.changes import Changes

HEARTBEAT_SECONDS: Final = 15.0
"""Proxies cut connections that are silent for a minute or less."""

_RETRY: Final = b"retry: 1000\n\n"
_HEARTBEAT: Final = b": heartbeat\n\n"


class EventStream(StreamingResponse):
    """The answer of ``GET /api/live``."""

    def __init__(self, changes: Changes, last_id: int | None, lifetime: Lifetime) -> None:
        super().__init__(
            # Fixed here: a change between the answer's first bytes and the first wait belongs to this stream.
            _messages(changes, changes.last_id if last_id is None else last_id, lifetime),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )


def last_event_id(request: Request) -> int | None:
    """The change after which a stream resumes; ``None`` starts with what comes next.

    Raises:
        Problem: 400, the header ``Last-Event-ID`` is no id of ours.
    """
    text = request.headers.get("last-event-id", "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise Problem(400, f"Last-Event-ID must be the id of a change, got {text[:64]!r}. Leave it out to start afresh.")
    return int(text)


async def _messages(changes: Changes, last_id: int, lifetime: Lifetime) -> AsyncIterator[bytes]:
    source = changes.subscribe(last_id)
    closing = asyncio.ensure_future(lifetime.closing.wait())
    coming: asyncio.Future[Change] | None = None
    try:
        yield _RETRY
        while not closing.done():
            coming = coming or asyncio.ensure_future(anext(source))
            await asyncio.wait((coming, closing), timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                change, coming = coming.result(), None
                yield _message(change)
            elif not closing.done():
                yield _HEARTBEAT
    except StopAsyncIteration:
        return
    finally:
        closing.cancel()
        if coming is not None:
            coming.cancel()


def _message(change: Change) -> bytes:
    return b"id: %d\nevent: run\ndata: %s\n\n" % (change.id, msgspec.json.encode(change))
