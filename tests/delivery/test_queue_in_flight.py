"""A full queue with a batch in flight: which events count as in flight, to the last one."""

from __future__ import annotations

import pytest
from support.delivery import event

from failpath_otel.delivery.queue import EventQueue


@pytest.mark.parametrize("order", [("running", "success"), ("success", "running")])
def test_a_start_at_either_end_of_what_is_in_flight_lets_an_outcome_in(order: tuple[str, str]) -> None:
    queue = EventQueue(2)
    for number, status in enumerate(order, start=1):
        assert queue.add(event(number, status)) is None
    queue.take(2)
    assert queue.add(event(3, "error")) is None
    assert queue.add(event(4, "error")) == (event(4, "error"), "queue_full")


def test_a_start_that_came_after_the_batch_is_not_in_flight() -> None:
    queue = EventQueue(2)
    queue.add(event(1, "success"))
    queue.take(1)
    queue.add(event(2, "running"))
    assert queue.add(event(3, "error")) == (event(2, "running"), "queue_full")
    assert queue.add(event(4, "error")) == (event(4, "error"), "queue_full")
