"""What every way for events to go on has in common: a receipt, refusals that a sender may repeat, and counts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final, Literal, Protocol

import msgspec

from failpath_otel.errors import FailpathError
from failpath_otel.events.step import StepEvent
from failpath_otel.events.wire import format_time
from failpath_otel.server.api.intake import ForwardState, IntakeCounts

RETRY_AFTER_SECONDS: Final = 1.0

Kind = Literal["rejected", "unmapped", "incomplete"]


class Receipt(msgspec.Struct, frozen=True):
    """What became of one submission, once it is where it was to go.

    Attributes:
        accepted: New events.
        duplicates: Events that were known already.
        rejected: Event id → the reason for which the event cannot be taken, now or later.
    """

    accepted: int
    duplicates: int
    rejected: Mapping[str, str] = {}


class IntakeError(FailpathError):
    """Events are not acknowledged and may be sent again after ``retry_after`` seconds."""

    detail: ClassVar[str] = "The events cannot be taken now. Send them again later."
    """The answer to the sender; ``str(error)`` is for the log."""

    def __init__(self, message: str, *, retry_after: float = RETRY_AFTER_SECONDS) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Overloaded(IntakeError):  # noqa: N818 - named for what it means to the sender
    """More events wait than the server takes."""

    detail = "More events wait than can be worked off now. Send these again later."


class StoreUnavailable(IntakeError):  # noqa: N818 - named for what it means to the sender
    """The database cannot store now: locked, full, gone; or the server stops."""

    detail = "The store cannot be written now. Send these again later."


class UpstreamUnavailable(IntakeError):  # noqa: N818 - named for what it means to the sender
    """The server to which events go on does not take them now: gone, busy, or refusing the key; or this one stops."""

    detail = "The server to which events go on does not take them now. Send these again later."


class EventSink(Protocol):
    """Where the events of a request go: into the store, on to another server, or both. All of it belongs to the event loop."""

    def start(self) -> None:
        """Begins to take events; call it within the running event loop."""
        ...

    async def submit(self, events: Sequence[StepEvent]) -> Receipt:
        """Returns once a sender may forget these events.

        Raises:
            IntakeError: Not now. The sender keeps them and sends them again.
        """
        ...

    def count(self, kind: Kind, n: int = 1) -> None:
        """Counts items that came in and are no events."""
        ...

    def intake(self) -> IntakeCounts:
        """What came in since the start."""
        ...

    async def close(self) -> None:
        """Takes nothing more, and finishes what was taken as far as its bound of time allows."""
        ...


class Counts:
    """What came in. Belongs to the event loop; ``clock`` gives nanoseconds since the Unix epoch."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._since_ns = clock()
        self._counts: Counter[str] = Counter()
        self._last_arrival_ns: int | None = None

    def count(self, kind: Kind, n: int = 1) -> None:
        """Counts items that are no events."""
        if n:
            self._counts[kind] += n
            self._last_arrival_ns = self._clock()

    def settle(self, receipt: Receipt) -> None:
        """Counts what became of a submission."""
        self._last_arrival_ns = self._clock()
        self._counts["accepted"] += receipt.accepted
        self._counts["duplicates"] += receipt.duplicates
        self._counts["rejected"] += len(receipt.rejected)

    def row(self, forward: ForwardState | None = None) -> IntakeCounts:
        """The counts as the API answers them."""
        last = self._last_arrival_ns
        return IntakeCounts(
            accepted=self._counts["accepted"],
            duplicates=self._counts["duplicates"],
            rejected=self._counts["rejected"],
            unmapped=self._counts["unmapped"],
            incomplete=self._counts["incomplete"],
            last_arrival_at=None if last is None else format_time(last),
            forward=forward,
            since=format_time(self._since_ns),
        )
