"""EventExporter: the two methods that an exporter of one's own needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from failpath_otel.events.step import StepEvent


@runtime_checkable
class EventExporter(Protocol):
    """Takes batches of events away. Called from one thread at a time, in the order in which events were recorded."""

    def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
        """Delivers ``batch``; returning means that it is delivered.

        Args:
            batch: At least one event. Events may come again after a failure, so the destination goes by ``event_id``.
            timeout_millis: How long delivery may take; 0 means without a limit.

        Raises:
            RetryableError: Not now. The batch is held and tried again.
            RejectedError: The named events are refused for good, the others are delivered.
            UnauthorizedError: The destination refuses the project key; nothing more is sent.
            Exception: Anything else: the whole batch counts as rejected.
        """
        ...

    def close(self) -> None:
        """Releases what the exporter holds. Called once, after the last ``export``."""
        ...
