"""The reads of the JSON API. Queries block, so they run in a small pool of threads."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from failpath_otel.events.wire import parse_time
from failpath_otel.server.http.headers import JSON
from failpath_otel.server.http.problem import Problem
from failpath_otel.server.http.shutdown import Lifetime
from failpath_otel.server.queries.reader import BadQuery, Queries
from failpath_otel.server.routes.stream import EventStream, last_event_id
from failpath_otel.server.store.changes import Changes

_T = TypeVar("_T")
_NO_STORE: Final = {"Cache-Control": "no-store"}
_LOST_PLUS: Final = re.compile(r" (?=\d\d:\d\d$)")
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


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

    async def flow(self, request: Request) -> Response:
        """``GET /api/flow?flow=&last=&cursor=``."""
        slug = _required(request, "flow", "?flow=<slug>")
        asked: dict[str, Any] = {"cursor": request.query_params.get("cursor") or None}
        last = request.query_params.get("last")
        if last:
            asked["last"] = _number("last", last)
        return await self._json(lambda: _found(self._queries.flow(slug, **asked), _no_flow(slug)))

    async def runs(self, request: Request) -> Response:
        """``GET /api/runs?flow=&status=&q=&since=&until=&limit=&cursor=``."""
        asked: dict[str, Any] = {name: request.query_params.get(name) or None for name in ("flow", "status", "q", "cursor")}
        limit = request.query_params.get("limit")
        if limit:
            asked["limit"] = _number("limit", limit)
        for name in ("since", "until"):
            if bound := request.query_params.get(name):
                asked[f"{name}_us"] = _time_us(name, bound)
        return await self._json(lambda: self._queries.runs(**asked))

    async def run(self, request: Request) -> Response:
        """``GET /api/run?flow=&run_id=``."""
        flow, run_id = _required_run(request)
        return await self._json(lambda: _found(self._queries.run(flow, run_id), _no_run(flow, run_id)))

    async def run_events(self, request: Request) -> Response:
        """``GET /api/run/events?flow=&run_id=``."""
        flow, run_id = _required_run(request)
        return await self._json(lambda: _found(self._queries.events(flow, run_id), _no_run(flow, run_id)))

    async def live(self, request: Request) -> Response:
        """``GET /api/live``: a stream that ends with the server."""
        return EventStream(self._changes, last_event_id(request), self._lifetime)

    async def _json(self, read: Callable[[], Any]) -> Response:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: answer(read()))
        except BadQuery as error:
            raise Problem(400, str(error)) from error


class NothingKept:
    """Takes the place of `Reads` where no run is kept: each call is a 404 that says so."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def refuse(self, _: Request) -> Response:
        """Any of the reads."""
        raise Problem(404, f"This server keeps nothing; the events go on to {self._url}, where the runs are.")


def answer(content: Any) -> Response:
    """An answer in JSON that no cache keeps."""
    return Response(msgspec.json.encode(content), media_type=JSON, headers=_NO_STORE)


def _required(request: Request, name: str, form: str) -> str:
    value = request.query_params.get(name)
    if not value:
        raise Problem(400, f"The query parameter {name!r} is missing: {request.url.path}{form}.")
    return value


def _required_run(request: Request) -> tuple[str, str]:
    form = "?flow=<slug>&run_id=<run id>"
    return _required(request, "flow", form), _required(request, "run_id", form)


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise Problem(400, f"The query parameter {name!r} must be a whole number, got {text[:64]!r}.")
    return int(text)


def _time_us(name: str, text: str) -> int:
    try:
        # A plus sign that was not percent-encoded arrives as a space.
        time = msgspec.convert(_LOST_PLUS.sub("+", text), _Time)
    except msgspec.ValidationError:
        raise Problem(
            400,
            f"The query parameter {name!r} must be a time with its offset such as 2026-01-31T09:30:00Z, got {text[:64]!r}.",
        ) from None
    return parse_time(time) // 1000


def _found(row: _T | None, missing: str) -> _T:
    if row is None:
        raise Problem(404, missing)
    return row


def _no_flow(slug: str) -> str:
    return f"The flow {slug[:200]!r} is neither declared nor did any event of it arrive. GET /api/flows lists those that are."


def _no_run(flow: str, run_id: str) -> str:
    return f"No run {run_id[:200]!r} of flow {flow[:200]!r} is stored. GET /api/runs lists those that are."
