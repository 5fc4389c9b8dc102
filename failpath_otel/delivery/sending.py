"""Sender: one attempt at a time to get the oldest events to the exporter, and how long to wait before the next."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, TypeGuard

from failpath_otel import clock
from failpath_otel.delivery.division import CONTROL, FAILURES_ALONE, Conclusion, Division
from failpath_otel.delivery.masking import Mask, masked
from failpath_otel.delivery.outbox import Outbox
from failpath_otel.delivery.refused_key import RefusedKey
from failpath_otel.errors import (
    BatchRefusedError,
    DeliveryError,
    ExportError,
    RejectedError,
    RetryableError,
    UnauthorizedError,
)
from failpath_otel.events.step import StepEvent
from failpath_otel.events.text import as_text
from failpath_otel.exporters.protocol import EventExporter
from failpath_otel.interruption import is_interruption
from failpath_otel.notices import all_clear, warn_once

Batch = list[tuple[int, StepEvent]]
OnError = Callable[[Exception], object]

# Not the generator of the module: a number drawn there is missing in what an application draws after it has seeded that.
_random: Final = random.SystemRandom()
_FIRST_BACKOFF_SECONDS: Final = 0.25
_MAX_BACKOFF_SECONDS: Final = 10.0
_MAX_HOLD_SECONDS: Final = 3600.0


class Sender:
    """Sends from an outbox. Used by one thread at a time, but for its attributes and `hurry`.

    Attributes:
        lost: The last failure that cost events and that nobody asked for yet.
        hold_until: Until when (monotonic seconds) the destination asked not to be called.
    """

    def __init__(
        self,
        outbox: Outbox,
        exporter: EventExporter,
        *,
        max_batch_size: int,
        mask: Mask | None,
        on_error: OnError | None,
        clock: Callable[[], float] = clock.monotonic,
    ) -> None:
        """``clock`` (seconds) is for what is tried again later: single events, and the key."""
        self._outbox = outbox
        self._exporter = exporter
        self._max_batch_size = max_batch_size
        self._mask = mask
        self._on_error = on_error
        self._masked_through = 0
        self._attempts = 0
        self._held: DeliveryError | None = None
        self._suspected: DeliveryError | None = None
        self._division = Division(max_batch_size, clock)
        self._control: StepEvent | None = None
        self._key = RefusedKey(clock)
        self._question: ExportError | None = None
        self.retries = 0
        self.mask_failures = 0
        self.lost: DeliveryError | None = None
        self.hold_until = 0.0

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed and its events are held."""
        return self._held is not None

    @property
    def held(self) -> DeliveryError | None:
        """Why events are held that were tried; ``None`` where there are none."""
        return self._held or (self._suspected if self._division.suspects else None)

    @property
    def fresh(self) -> int:
        """How many events wait for their first attempt, or for the next one together."""
        return self._outbox.queued - self._division.suspects

    @property
    def lingers(self) -> bool:
        """Whether what waits may wait for more to go out with it."""
        return self.fresh > 0 and self._question is None and not self._division.dividing

    def wait(self) -> float:
        """Seconds until there is something to do without a further event; infinite where there is nothing."""
        if self._question is not None or self._division.dividing or self.fresh > 0:
            return 0.0
        return min(self._division.wait(), self._key.wait())

    def hurry(self) -> None:
        """Has what failed alone tried again without a wait. May be called from any thread."""
        self._division.hurry()

    def send(self, timeout_millis: int, guard: type[BaseException] = Exception) -> float:
        """Tries to send what is next; returns the seconds for which the destination is to be left alone, 0 for no pause.

        One call of the exporter, or none. ``guard`` is what counts as a failure of it: on a thread of our own, everything.
        """
        if self._question is not None or self._key.wait() <= 0:
            return self._ask(timeout_millis, guard)
        waiting = self._outbox.take(self._max_batch_size + self._division.suspects)
        batch = self._chosen(waiting)
        if not batch:
            self._outbox.give_back()
            return 0.0
        try:
            batch = self._masked(waiting, batch, guard)
            self._exporter.export([event for _, event in batch], timeout_millis=timeout_millis)
        except guard as error:
            if guard is Exception and is_interruption(error):
                self._outbox.give_back()
                raise
            # Told first, so that whoever waits in flush() finds the callback done.
            self._tell(error, guard)
            return self._failed(batch, error)
        except BaseException:
            self._outbox.give_back()
            raise
        self._taken(batch)
        self._outbox.settle(number for number, _ in batch)
        return 0.0

    def _chosen(self, waiting: Batch) -> Batch:
        """What is to be sent of the oldest events."""
        division, batch = self._division, waiting
        numbers = [number for number, _ in waiting]
        if division.at_rest:
            division.begin(numbers)
        else:
            chosen = set(division.choose(numbers, control=self._control is not None))
            if self._control is not None and division.tries_control:
                return [(CONTROL, self._control)]
            batch = [pair for pair in waiting if pair[0] in chosen]
        if batch and (self.failing or division.tries_again):
            self.retries += 1
        return batch

    def _masked(self, waiting: Batch, batch: Batch, guard: type[BaseException]) -> Batch:
        mask = self._mask
        if mask is None or self._division.tries_control:
            return batch
        chosen = {number for number, _ in batch}
        last = batch[-1][0]
        out: Batch = []
        for number, event in waiting:
            if number > last:
                break
            if number > self._masked_through:
                # Once for each event, however often it is tried: a mask may count, or draw random tokens. What stands before
                # a chosen one is masked with it, since only the last is remembered.
                safe, worked = masked(event, mask, guard)
                self.mask_failures += not worked
                self._outbox.replace(number, safe)
                self._masked_through = number
            else:
                safe = event
            if number in chosen:
                out.append((number, safe))
        return out

    def _failed(self, batch: Batch, error: BaseException) -> float:
        if isinstance(error, RetryableError):
            return self._failed_for_now(error)
        if self._division.tries_control:
            self._control = None  # what is wrong is found out by the events that wait
            self._outbox.give_back()
            return 0.0
        if isinstance(error, RejectedError):
            warn_once("rejected", "events were rejected: %s", error)
            refused = {number for number, event in batch if event.event_id in error.rejected}
            self._taken(batch)
            self.lost = _delivery_error(error)
            self._outbox.settle((number for number, _ in batch if number not in refused), sorted(refused))
        elif isinstance(error, UnauthorizedError):
            return self._unauthorized(error, len(batch))
        elif self._asks_about(error):
            self._question = error
            self._outbox.give_back()
        else:
            division = self._division
            content = division.dividing or _may_be_content(error)
            self._refused(error, division.refused() if content else division.give_up())
        return 0.0

    def _failed_for_now(self, error: RetryableError) -> float:
        if _seconds(error.retry_after):
            return self._hold(error)  # it tells of the destination, not of what was sent
        verdict = self._division.failed()
        if verdict.wait:
            return self._hold(error)
        self._suspected = _delivery_error(error)
        if verdict.give_up:
            self.lost = self._suspected
            warn_once(
                "undeliverable",
                "an event is dropped: sending it alone failed %d times, and others were taken meanwhile: %s",
                FAILURES_ALONE,
                error,
            )
        self._outbox.settle((), verdict.give_up, "undeliverable")
        return 0.0

    def _refused(self, error: BaseException, verdict: Conclusion) -> None:
        """The destination refuses what was tried, for good; what is given up of it is dropped."""
        self._released()
        if isinstance(error, UnauthorizedError):
            if verdict.hopeless:
                self._stop(error)
                return
        elif self._key.on_trial:
            self._key_taken()
        if verdict.give_up:
            self.lost = _delivery_error(error)
            kind, count = type(error).__name__, len(verdict.give_up)
            warn_once("export", "a batch of %d events was refused: %s: %s", count, kind, as_text(error))
        self._outbox.settle((), verdict.give_up)

    # The key

    def _unauthorized(self, error: UnauthorizedError, count: int) -> float:
        """Whether it is the key or something in the batch: an empty one is asked, where the exporter can."""
        if self._key.on_trial or self._probe is None:
            self._stop(error)
        elif self._division.dividing and count > 1:
            self._refused(error, self._division.refused())  # it was asked already, and is again before an event is dropped
        else:
            self._question = error
            self._outbox.give_back()
        return 0.0

    def _asks_about(self, error: BaseException) -> TypeGuard[ExportError]:
        """Whether an empty batch can tell if it is the place that takes no events, or one of these that it does not take."""
        division = self._division
        return type(error) is ExportError and self._probe is not None and not (division.dividing or division.hopeless)

    def _ask(self, timeout_millis: int, guard: type[BaseException]) -> float:
        """Sends an empty batch, and does what follows from its answer."""
        question = self._question
        answer = self._answer(timeout_millis, guard)
        if question is None:
            self._asked_again(answer)
        elif isinstance(answer, RetryableError):
            return self._hold(answer)
        else:
            self._question = None
            if isinstance(answer, UnauthorizedError):
                self._stop(answer)
            elif isinstance(question, UnauthorizedError) or answer is None:
                self._refused(question, self._division.refused())
            else:
                self._refused(question, self._division.give_up())
        return 0.0

    def _answer(self, timeout_millis: int, guard: type[BaseException]) -> BaseException | None:
        if self._probe is None:
            return NotImplementedError()
        try:
            self._probe(timeout_millis=timeout_millis)
        except guard as error:
            if guard is Exception and is_interruption(error):
                raise
            return error
        return None

    @property
    def _probe(self) -> Callable[..., object] | None:
        """The method of `ProbingExporter`, where the exporter has it."""
        probe: object = getattr(self._exporter, "probe", None)
        return probe if callable(probe) else None

    def _asked_again(self, answer: BaseException | None) -> None:
        if answer is None or isinstance(answer, BatchRefusedError):
            self._key_taken()
            self._outbox.reopen()
        elif isinstance(answer, RetryableError | UnauthorizedError):
            self._key.refused()
        else:
            self._key.try_events()
            self._outbox.reopen()

    def _stop(self, error: UnauthorizedError) -> None:
        self._released()
        self.lost = _delivery_error(error)
        pause = self._key.refused()
        warn_once("unauthorized", "sending stops, and is tried again in %.0f s: %s", pause, error)
        self._division.reset()
        self._outbox.close("unauthorized")

    def _key_taken(self) -> None:
        self._key.taken()
        all_clear("unauthorized", "sending goes on: the project key is taken again")

    def _taken(self, batch: Batch) -> None:
        self._released()
        self._division.was_taken()
        self._control = None if self._division.at_rest else batch[-1][1]
        if self._key.on_trial:
            self._key_taken()

    # Waiting

    def _hold(self, error: RetryableError) -> float:
        warn_once("send", "events cannot be sent and are held: %s", error)
        self._held = _delivery_error(error)
        asked = _seconds(error.retry_after)
        if asked:
            # Not less than the first backoff: a moment that is over already would have us call without a pause.
            pause = max(asked, _FIRST_BACKOFF_SECONDS)
            self.hold_until = clock.monotonic() + asked
        else:
            ceiling = min(_MAX_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** min(self._attempts, 16))
            # Jitter keeps the processes of a fleet from coming back all at once.
            pause = _random.uniform(ceiling / 2, ceiling)
        self._attempts += 1
        self._outbox.give_back()
        return pause

    def _released(self) -> None:
        self._held = None
        self._attempts = 0
        self.hold_until = 0.0

    def _tell(self, error: BaseException, guard: type[BaseException]) -> None:
        if self._on_error is not None:
            try:
                self._on_error(error if isinstance(error, Exception) else _delivery_error(error))
            except guard as failure:
                if guard is Exception and is_interruption(failure):
                    raise
                warn_once("on_error", "on_error raised", exc_info=True)


def _may_be_content(error: BaseException) -> bool:
    """Whether one event of a batch may be the reason.

    It is not of a full disk, of an exporter that wants the process to end, or of an `ExportError`, which says so.
    """
    return isinstance(error, Exception) and not isinstance(error, OSError) and type(error) is not ExportError


def _delivery_error(cause: BaseException) -> DeliveryError:
    error = DeliveryError(as_text(cause) or type(cause).__name__)
    error.__cause__ = cause
    return error


def _seconds(retry_after: object) -> float:
    """The wait that an exporter asked for, bounded; 0 where it asked for none, or for what is no time."""
    if not isinstance(retry_after, int | float) or not retry_after > 0:
        return 0.0
    return float(min(retry_after, _MAX_HOLD_SECONDS))
