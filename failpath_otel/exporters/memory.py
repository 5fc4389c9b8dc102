"""MemoryExporter: keeps events in a list, for tests and notebooks."""

from __future__ import annotations

from collections.abc import Sequence

from failpath_otel.events.step import StepEvent


class MemoryExporter:
    """Keeps every event in ``events``, oldest first, until ``reset``."""

    def __init__(self) -> None:
        self.events: list[StepEvent] = []

    def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
        """Appends the batch; never fails."""
        self.events.extend(batch)

    def reset(self) -> None:
        """Forgets what was kept."""
        self.events.clear()

    def close(self) -> None:
        """Keeps the events: they are what one wants to look at after the end."""
