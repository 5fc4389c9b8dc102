"""A full queue with a batch in flight: what goes, what is let in above the bound, and that all of it is told (decision 14)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.delivery import ScriptedExporter, event, until

from failpath_otel.delivery import Delivery
from failpath_otel.errors import RetryableError
from failpath_otel.events.step import StepEvent

Deliver = Callable[..., Delivery]

BOUND = 1000


def steps(delivery: Delivery, *numbers: int) -> None:
    for number in numbers:
        delivery.record(event(number, "running"))
        delivery.record(event(number, "success"))


def all_in_flight(deliver: Deliver, *failures: Exception, **options: Any) -> tuple[Delivery, ScriptedExporter]:
    """500 steps fill the queue, and all of it is in flight until the gate is opened; then the failures follow."""

    def hold_the_next(batch: Sequence[StepEvent]) -> None:
        exporter.entered.clear()
        exporter.gate.clear()
        raise RetryableError("busy")

    # The first batch is of what has come by then; the second, after a pause, is of all that is queued.
    exporter = ScriptedExporter(hold_the_next, *failures)
    exporter.gate.clear()
    delivery = deliver(exporter, max_queue_size=BOUND, **options)
    steps(delivery, *range(500))
    assert exporter.entered.wait(20)
    exporter.gate.set()
    until(lambda: not exporter.gate.is_set())
    assert exporter.entered.wait(20)
    return delivery, exporter


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_a_batch_in_flight_costs_no_outcome(failures: int, deliver: Deliver) -> None:
    dropped: list[StepEvent] = []
    busy = [RetryableError("busy") for _ in range(failures)]
    delivery, exporter = all_in_flight(deliver, *busy, on_drop=lambda event, reason: dropped.append(event))
    steps(delivery, *range(500, 900))
    assert delivery.stats().pending == BOUND + 400
    exporter.gate.set()
    result = delivery.flush(60_000)
    assert (len(dropped), result.sent, result.recorded) == ((400, 1400, 1800) if not failures else (800, 1000, 1800))
    assert {event.status for event in dropped} == {"running"}
    assert len({event.event_id for event in exporter.events + dropped}) == result.recorded, "each is sent or told as dropped"
    assert sum(event.status == "success" for event in exporter.events) == 900


def test_above_the_bound_there_is_room_for_as_many_outcomes_as_starts_are_in_flight(deliver: Deliver) -> None:
    delivery, _ = all_in_flight(deliver)
    for number in range(500, 1100):
        delivery.record(event(number, "error"))
    stats = delivery.stats()
    assert (stats.pending, stats.dropped) == (BOUND + 500, {"queue_full": 100})
