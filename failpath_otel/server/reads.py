"""The reads of the JSON API. Queries block, so they run in a small pool of threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from failpath_otel.server.lifetime import Lifetime
from failpath_otel.server.live import Changes
from failpath_otel.server.problem import JSON, Problem
from failpath_otel.server.queries import BadQuery, Queries
from failpath_otel.server.stream import EventStream, last_event_id

_T = TypeVar("_T")
_NO_STORE: Final = {"Cache-Control": "no-store"}


class Reads:
    """One method a route."""

    def __init__(self, queries: Queries, changes: Changes, lifetime: Lifetime, pool: Executor) -> None:
        self._queries = queries
        self._changes = changes
        self._lifetime = lifetime
        self._pool = pool

    async def flows(self, _: Request) -> Response:
        """``GET /api/flows``."""
        return await self._json(self._queries.flows)

    async def runs(self, request: Request) -> Response:
        """``GET /api/runs?flow=&status=&q=&limit=&cursor=``."""
        asked: dict[str, Any] = {name: request.query_params.get(name) or None for name in ("flow", "status", "q", "cursor")}
        limit = request.query_params.get("limit")
        if limit:
            asked["limit"] = _number("limit", limit)
        return await self._json(lambda: self._queries.runs(**asked))

    async def run(self, request: Request) -> Response:
        """``GET /api/run?flow=&run_id=``."""
        flow, run_id = _required(request, "flow"), _required(request, "run_id")
        return await self._json(lambda: _found(self._queries.run(flow, run_id), flow, run_id))

    async def run_events(self, request: Request) -> Response:
        """``GET /api/run/events?flow=&run_id=``."""
        flow, run_id = _required(request, "flow"), _required(request, "run_id")
        return await self._json(lambda: _found(self._queries.events(flow, run_id), flow, run_id))

    async def live(self, request: Request) -> Response:
        """``GET /api/live``: a stream that ends with the server."""
        return EventStream(self._changes, last_event_id(request), self._lifetime)

    async def _json(self, read: Callable[[], Any]) -> Response:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: answer(read()))
        except BadQuery as error:
            raise Problem(400, str(error)) from error


class NothingKept:
    """Takes the place of `Reads` where no run is kept: each call is told so."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def refuse(self, _: Request) -> Response:
        """Any of the reads."""
        raise Problem(404, f"This server keeps nothing; the events go on to {self._url}, where the runs are.")


def answer(content: Any) -> Response:
    """An answer in JSON that no cache keeps."""
    return Response(msgspec.json.encode(content), media_type=JSON, headers=_NO_STORE)


def _required(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if not value:
        raise Problem(400, f"The query parameter {name!r} is missing: {request.url.path}?flow=<slug>&run_id=<run id>.")
    return value


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise Problem(400, f"The query parameter {name!r} must be a whole number, got {text[:64]!r}.")
    return int(text)


def _found(row: _T | None, flow: str, run_id: str) -> _T:
    if row is None:
        raise Problem(404, f"No run {run_id[:200]!r} of flow {flow[:200]!r} is stored. GET /api/runs lists those that are.")
    return row
