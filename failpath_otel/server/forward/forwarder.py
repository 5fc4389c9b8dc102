"""Forward: events go on to another server, and whoever sent them is answered when that server took them.

Nothing is kept here beyond a few seconds. What cannot go on in that time is left with its sender, who is asked to come again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from failpath_otel.errors import BatchRefusedError, ExportError, RejectedError, RetryableError
from failpath_otel.events.step import StepEvent
from failpath_otel.events.text import clip
from failpath_otel.events.wire import format_time
from failpath_otel.server.api.intake import ForwardState
from failpath_otel.server.forward.outage import Outage, way_out
from failpath_otel.server.forward.parcels import ForwardRequest, Parcel, WaitingRoom, halved, parcels_of, size_of
from failpath_otel.server.forward.suspects import Suspects, Trial
from failpath_otel.server.forward.untraced import untraced
from failpath_otel.server.runs.fold import key_of
from failpath_otel.server.settings import Destination, Upstream
from failpath_otel.server.sink import RETRY_AFTER_SECONDS, IntakeError, Overloaded, Receipt, UpstreamUnavailable

CONNECTIONS: Final = 4
MAX_WAITING_EVENTS: Final = 50_000
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
PATIENCE_SECONDS: Final = 3.0
"""How long events wait for their turn; longer than a server takes to start again."""
REQUEST_SECONDS: Final = 5.0
"""How long upstream may take to answer; with the patience still less than the 10 s after which OTLP senders give up."""
APART_SECONDS: Final = 20.0
"""How long the events of a refused batch are looked for that are the reason."""
MAX_REASON_BYTES: Final = 1024
CLOSE_SECONDS: Final = 0.7
REJECTIONS_LOGGED_EACH_SECONDS: Final = 60.0

_log = logging.getLogger("failpath_otel.server")

_Outcome = Mapping[str, str] | IntakeError


class Forward:
    """Sends events on, over a few connections at once. `submit`, `state` and closing belong to the event loop."""

    def __init__(
        self,
        destination: Destination,
        *,
        max_waiting_events: int = MAX_WAITING_EVENTS,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """``clock`` gives nanoseconds since the Unix epoch."""
        self._destination = destination
        self._max_events = max_waiting_events
        self._max_bytes = max_waiting_bytes
        self._patience = patience_seconds
        self._condition = threading.Condition()
        self._room = WaitingRoom()
        self._outage = Outage(clock)
        self._suspects = Suspects()
        self._closing = False
        self._stopped = False
        self._rejections_logged_at = float("-inf")
        # What follows belongs to the loop.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._under_way: set[ForwardRequest] = set()
        self._events = 0
        self._bytes = 0
        self._forwarded = 0
        self._rejected = 0
        self._held_back = 0

    @property
    def url(self) -> str:
        """Where events go on to."""
        return self._destination.url

    def start(self) -> None:
        """Starts the threads that send; call it within the running event loop."""
        self._loop = asyncio.get_running_loop()
        for number in range(CONNECTIONS):
            # Daemons, because an upstream that hangs must not keep the process: what hangs there is not acknowledged.
            threading.Thread(target=self._run, name=f"failpath-forward-{number + 1}", daemon=True).start()

    async def submit(self, events: Sequence[StepEvent]) -> Receipt:
        """Sends events on and returns once upstream has answered for each.

        Raises:
            Overloaded: Too many events wait; these were not taken.
            UpstreamUnavailable: Upstream does not take events now, or did not take these in time.
        """
        unique = list({(event.flow_key, event.run_id, key_of(event)): event for event in reversed(events)}.values())
        if not unique:
            return Receipt(0, 0)
        unique.reverse()
        request = self._admit(unique)
        try:
            await request.future
        except IntakeError:
            self._held_back += len(unique)
            raise
        self._forwarded += len(unique) - len(request.rejected)
        self._rejected += len(request.rejected)
        return Receipt(len(unique) - len(request.rejected), len(events) - len(unique), request.rejected)

    def state(self) -> ForwardState:
        """How it goes, since the start."""
        with self._condition:
            since, reason, at = self._outage.since_ns, self._outage.reason, self._outage.reason_at_ns
        return ForwardState(
            to=self.url,
            forwarded=self._forwarded,
            rejected=self._rejected,
            held_back=self._held_back,
            waiting=self._events,
            failing_since=None if since is None else format_time(since),
            last_error=reason,
            last_error_at=None if at is None else format_time(at),
        )

    def begin_close(self) -> None:
        """Takes nothing more. What can go on within the bound of time does; to the rest of the senders that is said in time."""
        if self._closing or self._loop is None:
            return
        with self._condition:
            self._closing = True
            failing = self._outage.open
            self._condition.notify_all()
        if failing:
            self._give_up()
        else:
            self._loop.call_later(CLOSE_SECONDS, self._give_up)

    async def close(self) -> None:
        """As `begin_close`, and waits for the end of it."""
        self.begin_close()
        if self._under_way:
            await asyncio.wait([request.future for request in self._under_way])
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    def _admit(self, events: Sequence[StepEvent]) -> ForwardRequest:
        if self._closing or self._loop is None:
            raise UpstreamUnavailable("the server stops or has not started")
        size = size_of(events)
        if self._events and (self._events + len(events) > self._max_events or self._bytes + size > self._max_bytes):
            self._held_back += len(events)
            raise Overloaded(
                f"{self._events} events of {self._bytes} bytes wait already, "
                f"at most {self._max_events} of {self._max_bytes} bytes may"
            )
        request = ForwardRequest(self._loop.create_future(), time.monotonic() + self._patience, len(events), len(events), size)
        parcels = list(parcels_of(request, events))
        with self._condition:
            # Memory does not fill with what could not go on in time anyhow.
            held = self._outage.left()
            if held > self._patience:
                self._held_back += len(events)
                raise self._unavailable()
            self._room.add(parcels)
            self._condition.notify()
        self._under_way.add(request)
        self._events += len(events)
        self._bytes += size
        return request

    def _unavailable(self, reason: str | None = None) -> UpstreamUnavailable:
        return UpstreamUnavailable(
            reason or self._outage.reason or "the server stops", retry_after=max(RETRY_AFTER_SECONDS, self._outage.left())
        )

    # The sending threads from here on.

    def _run(self) -> None:
        untraced()
        upstream = self._destination.connect()
        try:
            while parcels := self._next():
                self._send(upstream, parcels)
        finally:
            upstream.close()

    def _next(self) -> list[Parcel]:
        """What is to go out now, as soon as there is something; nothing when all is over."""
        with self._condition:
            while not self._stopped:
                pause = self._outage.left()
                if not pause and not self._outage.probed:
                    parcels, overdue = self._room.take(time.monotonic())
                    if overdue:
                        self._settle(overdue, self._unavailable("upstream is slower than events come in"))
                    if parcels:
                        self._outage.probed = self._outage.open
                        return parcels
                self._condition.wait(pause if pause and len(self._room) else None)
        return []

    def _send(self, upstream: Upstream, parcels: list[Parcel]) -> None:
        """Sends parcels on; where they fail or are refused together, in ever smaller parts, so that none takes another down."""
        give_up_at = time.monotonic() + APART_SECONDS
        trial = Trial(self._suspects, parcels)
        while not self._stopped and (part := trial.next()):
            called_at = time.monotonic()
            if called_at > give_up_at:
                late = self._unavailable("upstream refuses so many events that there was no time to try each alone")
                self._settle([*part, *trial.left()], late)
                return
            try:
                refused = self._export(upstream, part)
            except BatchRefusedError as error:
                self._succeeded()
                trial.add(self._apart(part, error))
            except ExportError as error:
                if not self._sorted_out(upstream, trial, part, error):
                    self._failed(error, called_at, [*part, *trial.left()])
                    return
            except Exception as error:
                # A fault of ours, which no event may pay for and no other sender.
                _log.exception("events could not be sent on")
                self._settle(part, self._unavailable(f"{type(error).__name__}: {error}"))
                self._release()
            else:
                self._succeeded()
                trial.taken(part)
                self._settle(part, refused)

    def _sorted_out(self, upstream: Upstream, trial: Trial, part: list[Parcel], error: ExportError) -> bool:
        """Whether a failure may be about what was sent, and is dealt with; else it is about upstream."""
        if isinstance(error, RetryableError):
            if error.retry_after:
                return False
            verdict = trial.failed(part, there=False)
        elif not self._takes_empty(upstream):
            return False
        else:
            self._succeeded()
            verdict = trial.failed(part, there=True)
        if verdict:
            self._reject(part, f"it fails alone, while others are taken: {error}")
        elif verdict is False and len(part) == 1 == len(part[0].events):
            self._settle(part, self._unavailable(str(error)))
        return verdict is not None

    def _takes_empty(self, upstream: Upstream) -> bool:
        """Whether an empty batch is taken: then it is neither the key nor the place."""
        try:
            upstream.probe(timeout_millis=round(REQUEST_SECONDS * 1000))
        except BatchRefusedError:
            return True  # for it is empty
        except Exception:
            return False
        return True

    def _export(self, upstream: Upstream, parcels: Sequence[Parcel]) -> Mapping[str, str]:
        """The events that upstream refused, with its reasons; it took the others."""
        events = [event for parcel in parcels for event in parcel.events]
        try:
            upstream.export(events, timeout_millis=round(REQUEST_SECONDS * 1000))
        except RejectedError as error:
            if not error.rejected.keys() <= {event.event_id for event in events}:
                # Which ones are meant is found by trying.
                raise BatchRefusedError(next(iter(error.rejected.values()))) from error
            self._log_rejections(error)
            return error.rejected
        return {}

    def _apart(self, parcels: list[Parcel], error: BatchRefusedError) -> list[list[Parcel]]:
        """A refused part in two, or nothing where it is one event, which is the one that was refused."""
        if len(parcels) > 1 or len(parcels[0].events) > 1:
            return halved(parcels)
        self._reject(parcels, str(error))
        return []

    def _reject(self, parcels: list[Parcel], reason: str) -> None:
        rejected = {parcels[0].events[0].event_id: reason}
        self._log_rejections(RejectedError(rejected))
        self._settle(parcels, rejected)

    def _failed(self, error: ExportError, called_at: float, parcels: Sequence[Parcel]) -> None:
        with self._condition:
            self._outage.begin(error, called_at)
            self._room.put_back(parcels)
            overdue = self._room.take_overdue(float("inf") if self._closing else self._outage.until)
            if overdue:
                self._settle(overdue, self._unavailable())
            is_news = bool(overdue) and not self._closing and self._outage.is_news(error)
            pause = self._outage.left()
            self._condition.notify_all()
        if is_news:
            _log.warning(
                "events do not go on to %s and stay with their senders, next try in %.0f s: %s%s",
                self.url,
                pause,
                error,
                way_out(error),
            )

    def _succeeded(self) -> None:
        with self._condition:
            if not self._outage.open:
                return
            news = self._outage.end()
            self._condition.notify_all()
        if news:
            _log.warning("events go on to %s again, %s", self.url, news)

    def _release(self) -> None:
        with self._condition:
            self._outage.probed = False
            self._condition.notify_all()

    def _log_rejections(self, error: RejectedError) -> None:
        now = time.monotonic()
        if now - self._rejections_logged_at >= REJECTIONS_LOGGED_EACH_SECONDS:
            self._rejections_logged_at = now
            _log.warning("%s refuses events, and their senders get its reason: %s", self.url, error)

    def _settle(self, parcels: Sequence[Parcel], outcome: _Outcome) -> None:
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._on_settled, parcels, outcome)
        except RuntimeError:
            # The loop is closed: nobody waits for the answer any more.
            return

    # The loop's thread again.

    def _on_settled(self, parcels: Sequence[Parcel], outcome: _Outcome) -> None:
        for parcel in parcels:
            request = parcel.request
            if isinstance(outcome, IntakeError):
                self._answer(request, outcome)
                continue
            request.left -= len(parcel.events)
            if outcome:
                names = (event.event_id for event in parcel.events if event.event_id in outcome)
                request.rejected.update((name, clip(outcome[name], MAX_REASON_BYTES)) for name in names)
            if not request.left:
                self._answer(request, None)

    def _answer(self, request: ForwardRequest, error: IntakeError | None) -> None:
        if request not in self._under_way:
            return
        self._under_way.discard(request)
        self._events -= request.events
        self._bytes -= request.size
        if request.future.done():  # whoever waited has gone
            return
        if error is None:
            request.future.set_result(None)
        else:
            request.future.set_exception(error)

    def _give_up(self) -> None:
        for request in list(self._under_way):
            self._answer(request, UpstreamUnavailable("the server stops before upstream answered"))
