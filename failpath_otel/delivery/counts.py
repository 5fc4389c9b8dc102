"""What became of the events: counts since the client's start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

DropReason = Literal["queue_full", "superseded", "rejected", "undeliverable", "unauthorized", "no_project_key", "shutdown"]
"""Why an event was not delivered.

``queue_full``: the queue was full and something that matters more took the place. ``superseded``: the queue was full and the
event was a ``running`` whose outcome, which carries its start, was queued too. ``rejected``: the exporter or destination
refused it. ``undeliverable``: sending it alone failed again and again, while events beside it were taken. ``unauthorized``: the
destination refuses the project key. ``no_project_key``: a remote endpoint without a key.
``shutdown``: it was recorded after ``shutdown``, or could not be sent before the deadline of it.
"""


@dataclass(frozen=True)
class FlushResult:
    """Counts since the client's start; ``sent + pending + sum(dropped.values())`` is every event that was recorded.

    Truthy when nothing is pending.
    """

    sent: int = 0
    pending: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])

    def __bool__(self) -> bool:
        return self.pending == 0

    @property
    def recorded(self) -> int:
        """Every event that was recorded, whatever became of it."""
        return self.sent + self.pending + sum(self.dropped.values())


@dataclass(frozen=True)
class Stats(FlushResult):
    """The counts of `FlushResult`, and how delivery fares.

    Attributes:
        retries: How often a batch was tried again.
        mask_failures: Events that went without metadata, message and stack because ``mask`` raised.
        baggage_refused: How often, in this process, baggage from outside named a run that cannot be one.
    """

    retries: int = 0
    mask_failures: int = 0
    baggage_refused: int = 0
