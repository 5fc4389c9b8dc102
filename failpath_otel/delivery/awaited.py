"""Awaited: an event that a caller waits for, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from failpath_otel.delivery.counts import DropReason
from failpath_otel.delivery.outbox import Outbox
from failpath_otel.delivery.sending import Sender
from failpath_otel.errors import DeliveryError
from failpath_otel.events.step import StepEvent

_REFUSED: Final = frozenset({"rejected", "undeliverable", "unauthorized"})


@dataclass(frozen=True)
class Awaited:
    """An event in the queue that somebody waits for.

    Attributes:
        outbox: Where it is.
        number: Its number there.
        deadline: Until when it is waited for, in monotonic seconds.
        waits: False where there is no use in it: nothing is taken any more, or the destination is failing already.
    """

    outbox: Outbox
    sender: Sender
    number: int
    deadline: float | None
    waits: bool

    def is_over(self) -> bool:
        """Whether the event is settled, or its destination fails."""
        return not self.outbox.holds(self.number) or self.sender.failing

    def failure(self, verdict: DropReason | Literal["held"] | None, timeout_millis: int) -> DeliveryError | None:
        """What kept the event from being sent."""
        if verdict == "held":
            held = self.sender.held
            return held or DeliveryError(f"not sent within {timeout_millis} ms; it is tried again in the background")
        if verdict is None or verdict == "superseded":
            return None
        return (verdict in _REFUSED and self.sender.lost) or DeliveryError(f"the event was dropped: {verdict}")


def awaited_event(outbox: Outbox, sender: Sender, event: StepEvent, deadline: float | None) -> Awaited | None:
    """Puts ``event`` into the queue; ``None`` where an interrupted thread may not wait for it."""
    failing = sender.failing
    number = outbox.add_awaited(event)
    if number is None:
        return None
    return Awaited(outbox, sender, number, deadline, waits=outbox.refuse is None and not failing)
