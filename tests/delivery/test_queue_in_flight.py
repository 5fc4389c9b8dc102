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


def test_a_superseded_start_that_is_in_flight_is_not_dropped() -> None:
    """It may have arrived already, so it must not be counted as dropped too."""
    queue = EventQueue(4)
    for number, status in ((1, "running"), (2, "running"), (1, "success"), (2, "success")):
        queue.add(event(number, status))
    assert queue.add(event(3, "running")) == (event(1, "running"), "superseded")
    taken = [number for number, _ in queue.take(4)]
    assert queue.add(event(4, "error")) is None
    assert queue.remove_all(taken) == 4


def test_of_two_starts_of_one_attempt_the_later_may_still_go_when_the_first_was_sent() -> None:
    queue = EventQueue(3)
    for number, status in ((1, "running"), (1, "running"), (2, "success")):
        queue.add(event(number, status))
    assert queue.add(event(3, "running")) == (event(3, "running"), "queue_full")
    assert queue.remove(1) == event(1, "running")
    assert queue.add(event(4, "success")) is None
    assert queue.add(event(5, "error")) == (event(1, "running"), "queue_full")
    assert len(queue) == 3


def test_what_is_taken_twice_is_in_flight_once() -> None:
    """A sender that was interrupted takes the oldest events again."""
    queue = EventQueue(2)
    for number in (1, 2):
        queue.add(event(number, "running"))
    assert queue.add(event(3, "running")) == (event(3, "running"), "queue_full")
    assert queue.take(2) == queue.take(2)
    assert [queue.add(event(number, "error")) for number in (4, 5, 6)] == [None, None, (event(6, "error"), "queue_full")]
