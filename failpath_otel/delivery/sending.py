"""Sender: one attempt at a time to get the oldest events to the exporter, and how long to wait before the next."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from failpath_otel import clock
from failpath_otel.delivery.masking import Mask, masked
from failpath_otel.delivery.outbox import Outbox
from failpath_otel.errors import DeliveryError, RejectedError, RetryableError, UnauthorizedError
from failpath_otel.events.step import StepEvent
from failpath_otel.events.text import as_text
from failpath_otel.exporters.protocol import EventExporter
from failpath_otel.interruption import is_interruption
from failpath_otel.notices import warn_once

OnError = Callable[[Exception], object]

_FIRST_BACKOFF_SECONDS: Final = 0.25
_MAX_BACKOFF_SECONDS: Final = 10.0
_MAX_HOLD_SECONDS: Final = 3600.0


class Sender:
    """Sends from an outbox. Used by one thread at a time.

    Attributes:
        lost: The last failure that cost events and that nobody asked for yet.
        held: Why the last attempt failed, whose events are held; ``None`` from the next that succeeds.
        hold_until: Until when (monotonic seconds) the destination asked not to be called.
    """

    def __init__(
        self, outbox: Outbox, exporter: EventExporter, *, max_batch_size: int, mask: Mask | None, on_error: OnError | None
    ) -> None:
        self._outbox = outbox
        self._exporter = exporter
        self._max_batch_size = max_batch_size
        self._mask = mask
        self._on_error = on_error
        self._masked_through = 0
        self._attempts = 0
        self.retries = 0
        self.mask_failures = 0
        self.lost: DeliveryError | None = None
        self.held: DeliveryError | None = None
        self.hold_until = 0.0

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed and its events are held."""
        return self.held is not None

    def send(self, timeout_millis: int, guard: type[BaseException] = Exception) -> float:
        """Tries to send the oldest batch; returns the seconds to wait before the next attempt, 0 where there is no need.

        ``guard`` is what counts as a failure of the exporter: on a thread of our own, everything.
        """
        batch = self._outbox.take(self._max_batch_size)
        if not batch:
            return 0.0
        if self.failing:
            self.retries += 1
        try:
            batch = self._masked(batch, guard)
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
        self._released()
        self._outbox.settle(number for number, _ in batch)
        return 0.0

    def _masked(self, batch: list[tuple[int, StepEvent]], guard: type[BaseException]) -> list[tuple[int, StepEvent]]:
        mask = self._mask
        if mask is None:
            return batch
        out: list[tuple[int, StepEvent]] = []
        for number, event in batch:
            if number > self._masked_through:
                # Once for each event, however often it is tried: a mask may count, or draw random tokens.
                safe, worked = masked(event, mask, guard)
                self.mask_failures += not worked
                self._outbox.replace(number, safe)
                self._masked_through = number
                out.append((number, safe))
            else:
                out.append((number, event))
        return out

    def _failed(self, batch: list[tuple[int, StepEvent]], error: BaseException) -> float:
        if isinstance(error, RetryableError):
            warn_once("send", "events cannot be sent and are held: %s", error)
            return self._hold(error)
        self._released()
        self.lost = _delivery_error(error)
        numbers = [number for number, _ in batch]
        if isinstance(error, RejectedError):
            warn_once("rejected", "events were rejected: %s", error)
            refused = {number for number, event in batch if event.event_id in error.rejected}
            self._outbox.settle((number for number in numbers if number not in refused), sorted(refused))
        elif isinstance(error, UnauthorizedError):
            warn_once("unauthorized", "sending stops: %s", error)
            self._outbox.close("unauthorized")
        else:
            warn_once("export", "a batch of %d events was refused: %s: %s", len(batch), type(error).__name__, as_text(error))
            self._outbox.settle((), numbers)
        return 0.0

    def _hold(self, error: RetryableError) -> float:
        self.held = _delivery_error(error)
        asked = _seconds(error.retry_after)
        if asked:
            # Not less than the first backoff: a moment that is over already would have us call without a pause.
            pause = max(asked, _FIRST_BACKOFF_SECONDS)
            self.hold_until = clock.monotonic() + asked
        else:
            ceiling = min(_MAX_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** min(self._attempts, 16))
            # Jitter keeps the processes of a fleet from coming back all at once.
            pause = random.uniform(ceiling / 2, ceiling)  # noqa: S311 - no secret is drawn
        self._attempts += 1
        self._outbox.give_back()
        return pause

    def _released(self) -> None:
        self.held = None
        self._attempts = 0
        self.hold_until = 0.0

    def _tell(self, error: BaseException, guard: type[BaseException]) -> None:
        if self._on_error is not None:
            try:
                self._on_error(error if isinstance(error, Exception) else _delivery_error(error))
            except guard:
                warn_once("on_error", "on_error raised", exc_info=True)


def _delivery_error(cause: BaseException) -> DeliveryError:
    error = DeliveryError(as_text(cause) or type(cause).__name__)
    error.__cause__ = cause
    return error


def _seconds(retry_after: object) -> float:
    """The wait that an exporter asked for, bounded; 0 where it asked for none, or for what is no time."""
    if not isinstance(retry_after, int | float) or not retry_after > 0:
        return 0.0
    return float(min(retry_after, _MAX_HOLD_SECONDS))
