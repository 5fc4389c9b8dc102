"""One way in for all events: submissions wait in a bounded queue, one thread commits what waits, then each gets its receipt.

A batch is whatever waits when the last one is done, so a lone submission is committed at once and many share one commit.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    ProgrammingError,
    SQLAlchemyError,
    StatementError,
)

from failpath_otel.events.step import StepEvent
from failpath_otel.flows import Flows
from failpath_otel.server.api.intake import IntakeCounts
from failpath_otel.server.sink import Counts, IntakeError, Kind, Overloaded, Receipt, StoreUnavailable
from failpath_otel.server.store.changes import Changes
from failpath_otel.server.store.database import Store
from failpath_otel.server.store.declarations import Declarations
from failpath_otel.server.store.retention import Retention, Sweeper
from failpath_otel.server.store.writer import Writer

__all__ = ["Ingest", "IntakeError", "Overloaded", "Receipt", "StoreUnavailable"]

MAX_BATCH_EVENTS: Final = 2_000
MAX_WAITING_EVENTS: Final = 50_000
CLOSE_SECONDS: Final = 1.5

_NO_VALUE: Final = re.compile(r"\bbind|\badapt", re.IGNORECASE)

_log = logging.getLogger("failpath_otel.server")


class _Submission(msgspec.Struct):
    events: Sequence[StepEvent]
    future: asyncio.Future[Receipt]


_Outcome = tuple[_Submission, Receipt | IntakeError]


class Ingest:
    """Takes events and answers when they are durable. `submit`, `count` and `intake` belong to the event loop."""

    def __init__(
        self,
        store: Store,
        flows: Flows,
        clock: Callable[[], int] = time.time_ns,
        max_waiting_events: int = MAX_WAITING_EVENTS,
        changes: Changes | None = None,
        retention: Retention | None = None,
    ) -> None:
        """``clock`` gives nanoseconds since the Unix epoch; ``max_waiting_events`` bounds the memory that waits."""
        self.changes: Final = changes or Changes(clock=clock)
        self.flows: Final = flows
        self._max_waiting = max_waiting_events
        self._writer = Writer(store, Declarations(flows), lambda: clock() // 1000)
        self._sweeper = Sweeper(store, retention or Retention(), lambda: clock() // 1000, self._writer.forget_runs)
        self._counts = Counts(clock)
        self._condition = threading.Condition()
        self._waiting: deque[_Submission] = deque()
        self._taken_events = 0  # waiting or being written; belongs to the loop
        self._closing = False
        self._give_up_at: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the writer; call it within the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self.changes.bind(self._loop)
        # A daemon, because a database that hangs must not keep the process: what it was writing is not acknowledged.
        self._thread = threading.Thread(target=self._run, name="failpath-writer", daemon=True)
        self._thread.start()

    async def submit(self, events: Sequence[StepEvent]) -> Receipt:
        """Stores events and returns once they are durable and reads see them.

        Raises:
            Overloaded: Too many events wait; these were not taken.
            StoreUnavailable: The database cannot store now; none of these was stored.
        """
        if not events:
            return Receipt(0, 0)
        if self._closing or self._loop is None:
            raise StoreUnavailable("the server stops or has not started; send the events again later")
        if self._taken_events and self._taken_events + len(events) > self._max_waiting:
            raise Overloaded(
                f"{self._taken_events} events wait already, at most {self._max_waiting} may; send them again later"
            )
        submission = _Submission(events, self._loop.create_future())
        self._taken_events += len(events)
        with self._condition:
            self._waiting.append(submission)
            self._condition.notify()
        return await submission.future

    def count(self, kind: Kind, n: int = 1) -> None:
        """Counts items that came in and are no events."""
        self._counts.count(kind, n)

    def intake(self) -> IntakeCounts:
        """What came in since the start."""
        return self._counts.row()

    @property
    def deleted_runs(self) -> int:
        """How many runs were deleted since the start, because they were old."""
        return self._sweeper.deleted_runs

    async def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Takes nothing more, commits what was taken within the timeout, and stops; what is left then is refused."""
        self._closing = True
        with self._condition:
            self._give_up_at = time.monotonic() + timeout_seconds
            self._condition.notify()
        if self._stopped is not None:
            try:
                await asyncio.wait_for(self._stopped.wait(), timeout_seconds)
            except asyncio.TimeoutError:
                _log.warning(
                    "the database did not finish its last transaction in %.1f s; it is not acknowledged", timeout_seconds
                )
        self.changes.close()

    # The writer's thread from here on.

    def _run(self) -> None:
        more_to_judge = True
        try:
            while True:
                batch = self._next_batch(0.0 if more_to_judge else self._sweeper.due_in())
                if batch is None:
                    return
                if batch:
                    self._write(batch)
                elif more_to_judge:
                    more_to_judge = self._rejudge()
                # A small step after each batch, so that deleting neither waits for a pause nor makes senders wait.
                self._sweep()
        finally:
            self._call(self._on_stopped)

    def _next_batch(self, patience: float | None) -> list[_Submission] | None:
        """What waits, up to `MAX_BATCH_EVENTS`, or nothing after so many seconds; ``None`` when all is done."""
        with self._condition:
            self._condition.wait_for(lambda: self._waiting or self._give_up_at is not None, patience)
            if self._give_up_at is not None and (not self._waiting or time.monotonic() > self._give_up_at):
                self._settle([(submission, StoreUnavailable("the server stops")) for submission in self._waiting])
                return None
            batch: list[_Submission] = []
            n = 0
            while self._waiting and (not batch or n + len(self._waiting[0].events) <= MAX_BATCH_EVENTS):
                batch.append(self._waiting.popleft())
                n += len(batch[-1].events)
            return batch

    def _write(self, batch: Sequence[_Submission]) -> None:
        try:
            written = self._writer.write([submission.events for submission in batch])
        except Exception as error:
            if not _is_about_a_value(error):
                _log.warning("the database cannot store: %s", _cause(error))
                unavailable = StoreUnavailable(f"the database cannot store now: {_cause(error)}")
                self._settle([(submission, unavailable) for submission in batch])
            elif len(batch) > 1:
                # One bad event must not take its neighbours down: look for it among ever fewer.
                middle = len(batch) // 2
                self._write(batch[:middle])
                self._write(batch[middle:])
            else:
                self._settle([(batch[0], self._write_apart(batch[0].events, error))])
            return
        self.changes.announce(written.touched)
        self._settle(list(zip(batch, written.receipts, strict=True)))

    def _write_apart(self, events: Sequence[StepEvent], error: Exception) -> Receipt | IntakeError:
        """Stores one submission, of which some event cannot be stored, in parts; ``error`` is what the whole met with."""
        if len(events) == 1:
            _log.warning("an event cannot be stored and is rejected: %s", _cause(error))
            return Receipt(0, 0, {events[0].event_id: f"the database cannot hold this event: {_cause(error)}"})
        accepted = duplicates = 0
        rejected: dict[str, str] = {}
        for part in (events[: len(events) // 2], events[len(events) // 2 :]):
            try:
                written = self._writer.write([part])
                receipt: Receipt | IntakeError = written.receipts[0]
                self.changes.announce(written.touched)
            except Exception as failure:
                if not _is_about_a_value(failure):
                    return StoreUnavailable(f"the database cannot store now: {_cause(failure)}")
                receipt = self._write_apart(part, failure)
            if isinstance(receipt, IntakeError):
                return receipt
            accepted += receipt.accepted
            duplicates += receipt.duplicates
            rejected.update(receipt.rejected)
        return Receipt(accepted, duplicates, rejected)

    def _rejudge(self) -> bool:
        try:
            return self._writer.rejudge()
        except Exception as error:
            _log.warning("runs could not be judged by the new flows file; the next start tries again: %s", _cause(error))
            return False

    def _sweep(self) -> None:
        try:
            self._sweeper.step()
        except Exception as error:
            _log.warning("old runs could not be deleted; it is tried again soon: %s", _cause(error))

    def _settle(self, outcomes: list[_Outcome]) -> None:
        self._call(self._on_settled, outcomes)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The loop is closed: nobody waits for the answer any more.
            return

    # The loop's thread again.

    def _on_settled(self, outcomes: list[_Outcome]) -> None:
        for submission, outcome in outcomes:
            self._taken_events -= len(submission.events)
            future = submission.future
            if isinstance(outcome, Receipt):
                self._counts.settle(outcome)
                if not future.done():
                    future.set_result(outcome)
            elif not future.done():
                future.set_exception(outcome)

    def _on_stopped(self) -> None:
        if self._stopped is not None:
            self._stopped.set()


def _is_about_a_value(error: Exception) -> bool:
    """True where one of the events is the reason, so that trying again would not help; False where the database is."""
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return False
        # Drivers say so when they are given what no column can hold, but also when tables are gone or a connection is.
        refused = isinstance(error, InterfaceError | ProgrammingError) and _NO_VALUE.search(str(error.orig)) is not None
        return refused or isinstance(error, DataError | IntegrityError)
    return isinstance(error, StatementError) or not isinstance(error, SQLAlchemyError | OSError | MemoryError)


def _cause(error: Exception) -> str:
    cause = error.orig if isinstance(error, StatementError) and error.orig is not None else error
    return f"{type(cause).__name__}: {str(cause).strip()[:200]}"
