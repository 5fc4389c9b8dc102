"""EventExporter: the two methods that an exporter of one's own needs, and one more that it may have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from failpath_otel.events.step import StepEvent


@runtime_checkable
class EventExporter(Protocol):
    """Takes batches of events away. Called from one thread at a time, in the order in which events were recorded.

    Where a batch fails again and again, or is refused, smaller parts of it are tried, and then later events may come before
    earlier ones: one event that is never taken does not stop the others.
    """

    def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
        """Delivers ``batch``; returning means that it is delivered.

        Args:
            batch: At least one event. Events may come again after a failure, so the destination goes by ``event_id``.
            timeout_millis: How long delivery may take; 0 means without a limit.

        Raises:
            RetryableError: Not now. The batch is held and tried again; after a few times without ``retry_after`` in parts.
            RejectedError: The named events are refused for good, the others are delivered.
            UnauthorizedError: The destination refuses the project key. Events are dropped until it takes the key again.
            ExportError, OSError: Nothing of the batch can be delivered, nor of a part of it: all of it counts as rejected.
            Exception: `BatchRefusedError` and anything else refuse the batch for what is in it. Parts of it are tried, and what
                is refused alone counts as rejected.
        """
        ...

    def close(self) -> None:
        """Releases what the exporter holds. Called once, after the last ``export``."""
        ...


@runtime_checkable
class ProbingExporter(EventExporter, Protocol):
    """An `EventExporter` that can ask its destination without sending events. `HttpExporter` is one.

    It is asked after an `UnauthorizedError`, whether it is the key that is refused or something in the batch; after an
    `ExportError`, whether parts of the batch may be taken; and while the key is refused, whether it is taken again. Where an
    exporter cannot be asked, an `UnauthorizedError` is about the key, and events that come after a while are sent to find out.
    """

    def probe(self, *, timeout_millis: int) -> object:
        """Asks with an empty batch; returning means that it is taken. Called from the thread that calls ``export``.

        Args:
            timeout_millis: How long the answer may take; 0 means without a limit.

        Raises:
            UnauthorizedError: The destination refuses the project key.
            RetryableError: It cannot be asked now.
            Exception: Anything else says nothing of the key.
        """
        ...
