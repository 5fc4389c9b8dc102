"""The ways in: ``POST /v1/events``, ``/v1/traces``, ``/v1/logs``, and OTLP/gRPC.

Answered once a sender may forget what it sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from failpath_otel.errors import EventError
from failpath_otel.events.step import StepEvent
from failpath_otel.events.text import MAX_ID_CHARS, clip
from failpath_otel.events.wire import decode_event, split_events
from failpath_otel.rules import CompiledRules
from failpath_otel.server.api.receipts import Receipts, Rejected
from failpath_otel.server.http.body import Disconnected, check_commas, inflate, is_gzip, read_wire, too_large
from failpath_otel.server.http.headers import JSON, media_type
from failpath_otel.server.http.problem import Problem
from failpath_otel.server.http.request_notes import RequestNotes, notes_of
from failpath_otel.server.http.shutdown import Lifetime
from failpath_otel.server.http.tolerant_json import repaired
from failpath_otel.server.intake.diagnostics import IntakeDiagnostics
from failpath_otel.server.otlp.decode import MEDIA_TYPES, Decoded, Signal
from failpath_otel.server.sink import EventSink, IntakeError, Receipt

IN_LOOP_BYTES: Final = 16 * 1024
"""Bodies up to this size are decoded where they are read; a thread would cost more than it spares."""

MAX_EVENTS: Final = 50_000
"""Of 16 MiB, so many smallest events; more items are no events at all, and each costs time to say so."""

_T = TypeVar("_T")


class _AnyId(msgspec.Struct, rename="camel"):
    event_id: Any = None


class Intake:
    """Reads a request's body within bounds, decodes it, and hands its events on."""

    def __init__(
        self,
        sink: EventSink,
        diagnostics: IntakeDiagnostics,
        lifetime: Lifetime,
        pool: Executor,
        rules: CompiledRules | None = None,
    ) -> None:
        self._sink = sink
        self._diagnostics = diagnostics
        self._lifetime = lifetime
        self._pool = pool
        self._rules = rules

    async def events(self, scope: Scope, receive: Receive) -> Response:
        """``POST /v1/events``."""
        if media_type(scope) != JSON:
            raise _unsupported(media_type(scope), JSON)
        events, rejected = await self._decoded(*await self._received(scope, receive), read_events)
        notes_of(scope).items = len(events) + len(rejected)
        receipt = await self._submit(events)
        self._sink.count("rejected", len(rejected))
        rejected += (Rejected(event_id, reason) for event_id, reason in receipt.rejected.items())
        self._diagnostics.rejected(one.reason for one in rejected)
        answer = Receipts(receipt.accepted, receipt.duplicates, rejected)
        return Response(msgspec.json.encode(answer), 202, media_type=JSON)

    async def otlp(self, signal: Signal, scope: Scope, receive: Receive) -> Response:
        """``POST /v1/traces`` or ``/v1/logs``, answered in the request's encoding."""
        kind = media_type(scope)
        if kind not in MEDIA_TYPES:
            raise _unsupported(kind, " or ".join(sorted(MEDIA_TYPES)))
        raw, compressed = await self._received(scope, receive)
        return Response(await self.take(signal, kind, raw, compressed, notes_of(scope)), 200, media_type=kind)

    async def take(self, signal: Signal, kind: str, raw: bytes, compressed: bool, notes: RequestNotes) -> bytes:
        """Takes an OTLP request, by whatever way it came, and gives the body of the answer to it.

        Raises:
            Problem: The request is refused as a whole.
        """
        decoded: Decoded = await self._decoded(raw, compressed, lambda body: signal.decode(body, kind, self._rules))
        incomplete = decoded.incomplete
        notes.items = len(decoded.events) + len(decoded.rejected) + decoded.unmapped + incomplete
        receipt = await self._submit(decoded.events)
        rejected = [*decoded.rejected, *receipt.rejected.values()]
        self._diagnostics.rejected(rejected)
        self._diagnostics.incomplete(decoded.lacking)
        self._sink.count("rejected", len(decoded.rejected))
        self._sink.count("unmapped", decoded.unmapped)
        self._sink.count("incomplete", incomplete)
        return signal.answer(rejected, kind)

    async def _received(self, scope: Scope, receive: Receive) -> tuple[bytes, bool]:
        """The body as it came, and whether it is compressed."""
        compressed = is_gzip(scope)
        return await self._lifetime.until_closing(read_wire(scope, receive)), compressed

    async def _decoded(self, raw: bytes, compressed: bool, decode: Callable[[bytes], _T]) -> _T:
        work = partial(_inflated_and_decoded, raw, compressed, decode)
        try:
            if len(raw) <= IN_LOOP_BYTES and not compressed:
                return work()
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except EventError as error:
            raise Problem(400, clip(str(error), 2048)) from error

    async def _submit(self, events: list[StepEvent]) -> Receipt:
        if not events:
            return Receipt(0, 0)
        try:
            return await self._sink.submit(events)
        except IntakeError as error:
            raise Problem.busy(error.detail, error.retry_after) from error


class Endpoint:
    """One way in as an ASGI application, so that a sender that goes away needs no answer."""

    def __init__(self, handle: Callable[[Scope, Receive], Any]) -> None:
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        try:
            response: Response = await self._handle(scope, receive)
        except Disconnected:
            return
        await response(scope, receive, send)


def read_events(body: bytes) -> tuple[list[StepEvent], list[Rejected]]:
    """The events of a body of ``/v1/events``, and those that were refused.

    Raises:
        EventError: The body is no JSON object with a list of events.
        Problem: 413, more items than a body of events can hold.
    """
    check_commas(body)
    try:
        raws = split_events(body)
    except EventError:
        try:
            raws = split_events(repaired(body))
        except ValueError as error:
            raise EventError(f'The body must be a JSON object with a list "events": {clip(str(error), 512)}.') from error
    if len(raws) > MAX_EVENTS:
        raise too_large(f"The body has {len(raws)} events, more than {MAX_EVENTS}")
    events: list[StepEvent] = []
    rejected: list[Rejected] = []
    for raw in raws:
        try:
            events.append(decode_event(raw))
        except EventError as error:  # noqa: PERF203 - each event stands or falls alone
            rejected.append(Rejected(_event_id(raw), clip(str(error), 1024)))
        except Exception as error:
            # No event, however strange, may cost its neighbours.
            rejected.append(Rejected(_event_id(raw), f"the event cannot be read: {type(error).__name__}"))
    return events, rejected


def _event_id(raw: bytes | msgspec.Raw) -> str:
    try:
        found = msgspec.json.decode(raw, type=_AnyId).event_id
    except (ValueError, RecursionError):
        return ""
    return found[:MAX_ID_CHARS] if isinstance(found, str) else ""


def _inflated_and_decoded(raw: bytes, compressed: bool, decode: Callable[[bytes], _T]) -> _T:
    return decode(inflate(raw) if compressed else raw)


def _unsupported(kind: str, wanted: str) -> Problem:
    return Problem(415, f"Content-Type {kind[:128]!r} is not supported here; send {wanted}.")
