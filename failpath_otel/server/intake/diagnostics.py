"""What senders got wrong, and who called last: for people who wonder why nothing arrives. Belongs to the event loop.

All of it is bounded, because senders decide what is in it.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from msgspec.structs import replace
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from failpath_otel.events.wire import format_time
from failpath_otel.server.api.intake import IncompleteSample, IntakeCounts, LastRequest, Refusal
from failpath_otel.server.http.headers import header
from failpath_otel.server.http.request_notes import RequestNotes, begin
from failpath_otel.server.otlp.item import MAX_KINDS, Lacking
from failpath_otel.server.runs.fingerprint import normal

MAX_CHARS: Final = 200


class IntakeDiagnostics:
    """The last request, refusals by reason, and what incomplete items lacked."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        """``clock`` gives nanoseconds since the Unix epoch."""
        self._clock = clock
        self._last: LastRequest | None = None
        self._refusals: OrderedDict[tuple[str, int | None], Refusal] = OrderedDict()
        self._lacking: OrderedDict[Lacking, int] = OrderedDict()

    def request(self, path: str, agent: str | None, status: int, notes: RequestNotes) -> None:
        """A request was answered; of gRPC, ``path`` is the method, and ``status`` what HTTP would have said."""
        self._last = LastRequest(
            at=format_time(self._clock()),
            path=path[:MAX_CHARS],
            status=status,
            items=notes.items,
            agent=None if agent is None else agent[:MAX_CHARS],
        )
        if notes.refusal is not None:
            self._refused(notes.refusal, status, 1)

    def rejected(self, reasons: Iterable[str]) -> None:
        """Items of a request were refused, and the others were taken."""
        for reason, n in Counter(reasons).most_common(MAX_KINDS):
            self._refused(reason, None, n)

    def incomplete(self, lacking: Mapping[Lacking, int]) -> None:
        """Spans or log records lacked some of the attributes that name a step."""
        for kind, n in lacking.items():
            self._lacking[kind] = self._lacking.get(kind, 0) + n
            _newest(self._lacking, kind)

    def put_into(self, counts: IntakeCounts) -> IntakeCounts:
        """The counts with all this; the newest first."""
        return replace(
            counts,
            last_request=self._last,
            refusals=list(reversed(self._refusals.values())),
            incomplete_samples=[
                IncompleteSample(missing=list(missing), service=service, count=n)
                for (missing, service), n in reversed(self._lacking.items())
            ],
        )

    def _refused(self, refusal: str, status: int | None, n: int) -> None:
        reason = normal(refusal)[:MAX_CHARS]
        known = self._refusals.get((reason, status))
        self._refusals[reason, status] = Refusal(
            reason=reason,
            status=status,
            count=n + (0 if known is None else known.count),
            last_at=format_time(self._clock()),
            sample=refusal[:MAX_CHARS],
        )
        _newest(self._refusals, (reason, status))


class Watch:
    """ASGI middleware that notices every request of a sender, also those that no other part lets through."""

    def __init__(self, app: ASGIApp, diagnostics: IntakeDiagnostics) -> None:
        self._app = app
        self._diagnostics = diagnostics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        notes = begin(scope)

        async def send_noticed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._diagnostics.request(scope["path"], header(scope, b"user-agent"), message["status"], notes)
            await send(message)

        await self._app(scope, receive, send_noticed)


def _newest(kinds: OrderedDict[Any, Any], kind: Any) -> None:
    """Keeps the kinds in the order in which they were met last, and the last of them only."""
    kinds.move_to_end(kind)
    while len(kinds) > MAX_KINDS:
        kinds.popitem(last=False)
