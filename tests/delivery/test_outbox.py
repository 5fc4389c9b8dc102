from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.delivery import OUTCOMES, event, growth, interrupted_in

from failpath_otel.delivery import outbox as outbox_module
from failpath_otel.delivery.outbox import Outbox
from failpath_otel.delivery.queue import EventQueue
from failpath_otel.delivery.wake_up import WakeUp
from failpath_otel.events.step import StepEvent


def outbox(capacity: int = 10, **options: Any) -> Outbox:
    return Outbox(capacity, options.get("on_drop"), options.get("refuse"))


def counts(box: Outbox) -> tuple[int, int, dict[str, int]]:
    stats = box.stats(0, 0)
    return stats.sent, stats.pending, dict(stats.dropped)


ACTIONS = st.one_of(
    st.tuples(st.just("record"), st.integers(1, 8), st.sampled_from(("running", *OUTCOMES))),
    st.tuples(st.sampled_from(("send", "reject", "hold", "admit")), st.integers(1, 6), st.just("")),
)


@given(st.integers(1, 6), st.lists(ACTIONS, max_size=60), st.booleans())
def test_sent_and_pending_and_dropped_are_what_was_recorded(capacity: int, actions: list[Any], close: bool) -> None:
    """Whatever happens, in whatever order, every event is accounted for once, and the bound holds."""
    told: list[tuple[StepEvent, str]] = []
    box = outbox(capacity, on_drop=lambda event, reason: told.append((event, reason)))
    recorded = 0
    for action, number, status in actions:
        if action == "record":
            box.inbox.append(event(number, status))
            recorded += 1
        elif action == "admit":
            box.admit()
        else:
            taken = [number for number, _ in box.take(number)]
            if action == "send":
                box.settle(taken)
            elif action == "reject":
                box.settle(taken[1:], taken[:1])
            else:
                box.give_back()
        assert box.queued <= capacity
    if close:
        box.close("shutdown")
    sent, pending, dropped = counts(box)
    assert sent + pending + sum(dropped.values()) == recorded
    assert pending <= capacity
    assert len(told) == sum(dropped.values())
    assert pending == 0 or not close


def test_settling_what_is_gone_counts_nothing() -> None:
    """A worker that comes back after shutdown gave up its batch does not count it a second time."""
    box = outbox()
    box.inbox.extend([event(1), event(2)])
    box.admit()
    taken = [number for number, _ in box.take(2)]
    box.close("shutdown")
    box.settle(taken)
    assert counts(box) == (0, 0, {"shutdown": 2})


def test_a_closed_outbox_drops_what_comes_later_for_the_first_reason() -> None:
    box = outbox()
    box.close("unauthorized")
    box.close("shutdown")
    box.inbox.append(event())
    assert counts(box) == (0, 0, {"unauthorized": 1})


def test_on_drop_is_called_without_the_lock() -> None:
    """Another thread that asks for the counts from within a callback gets them."""
    box = outbox(1, on_drop=lambda event, reason: seen.append(ask_from_elsewhere()))
    seen: list[object] = []

    def ask_from_elsewhere() -> object:
        asking = threading.Thread(target=lambda: answers.append(box.stats(0, 0)))
        asking.start()
        asking.join(10)
        return answers.pop()

    answers: list[object] = []
    box.inbox.extend([event(1), event(2)])
    box.admit()
    box.close("shutdown")
    assert len(seen) == 2


def test_on_drop_that_records_into_the_full_queue_does_not_go_round_for_ever() -> None:
    """What is dropped while the callback runs is counted, and not told again."""

    def on_drop(dropped: StepEvent, reason: str) -> None:
        told.append(dropped)
        box.inbox.append(event(100 + len(told)))
        box.admit()

    told: list[StepEvent] = []
    box = outbox(1, on_drop=on_drop)
    box.inbox.extend([event(1), event(2)])
    box.admit()
    assert told == [event(2)]
    assert counts(box) == (0, 1, {"queue_full": 2})


def test_on_drop_that_raises_does_no_harm() -> None:
    def on_drop(dropped: StepEvent, reason: str) -> None:
        raise ValueError(reason)

    box = outbox(1, on_drop=on_drop)
    box.inbox.extend([event(1), event(2), event(3)])
    box.admit()
    assert counts(box) == (0, 1, {"queue_full": 2})


def test_an_interruption_on_the_holders_thread_leaves_the_queue_alone() -> None:
    """As by a signal handler or finalizer: its event waits in the inbox until the holder goes on, and nothing is lost."""
    box = outbox(2)
    box.inbox.append(event(1))

    def handler() -> None:
        box.inbox.append(event(7))
        box.admit()
        assert (box.stats(0, 0).pending, len(box.inbox)) == (0, 2)

    # It runs with the lock held.
    with interrupted_in(EventQueue.add_from, handler):
        box.admit()
    assert [e.span_id for _, e in box.take(9)] == [event(1).span_id, event(7).span_id]
    assert counts(box) == (0, 2, {})


def test_an_awaited_event_on_an_interrupted_thread_is_merely_recorded() -> None:
    box = outbox()
    numbers: list[object] = []
    with interrupted_in(EventQueue.add_from, lambda: numbers.append(box.add_awaited(event(1)))):
        box.admit()
    assert numbers == [None]
    assert counts(box) == (0, 1, {})


def test_the_verdict_on_an_awaited_event() -> None:
    box = outbox(2)
    first, second = event(1), event(2, "running")
    numbers = [box.add_awaited(first), box.add_awaited(second)]
    assert numbers == [1, 2]
    box.settle([1], [2])
    assert box.verdict(1, first) is None
    assert box.verdict(2, second) == "rejected"
    third = event(3)
    assert box.add_awaited(third) == 3
    assert box.verdict(3, third) == "held"


def test_nothing_is_kept_of_an_event_whose_verdict_was_given() -> None:
    box = outbox()
    numbers = itertools.count(1)

    def ask_many() -> None:
        for _ in range(2000):
            number = next(numbers)
            awaited = event(number)
            recorded = box.add_awaited(awaited)
            assert recorded is not None
            box.settle([recorded] if number % 2 else [], [] if number % 2 else [recorded])
            box.verdict(recorded, awaited)

    assert growth(ask_many) < 50_000
    held = event(next(numbers))
    number = box.add_awaited(held)
    assert number is not None
    assert box.verdict(number, held) == "held"
    box.settle([], [number])
    assert box.verdict(number, held) is None, "its end was noted, though nobody waited any more"


def test_waiting_ends_at_the_deadline_and_when_something_is_settled() -> None:
    box = outbox()
    box.inbox.append(event())
    box.admit()
    box.wait(lambda: False, 0.0)
    settling = threading.Thread(target=lambda: box.settle([1]))
    settling.start()
    box.wait(lambda: not box.holds(1), None)
    settling.join()
    assert counts(box) == (1, 0, {})


def test_a_refusing_outbox_drops_everything() -> None:
    box = outbox(refuse="no_project_key")
    box.inbox.extend([event(1), event(2)])
    assert counts(box) == (0, 0, {"no_project_key": 2})
    assert box.oldest > box.recorded


def test_who_waits_looks_up_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that comes just before the thread falls asleep is handled no sooner than it wakes."""
    slept: list[float] = []

    class Slept(WakeUp):
        def wait(self, seconds: float) -> None:
            slept.append(seconds)

    monkeypatch.setattr(outbox_module, "WakeUp", Slept)
    for deadline in (None, time.monotonic() + 3600):
        slept.clear()
        outbox().wait(lambda: len(slept) > 3, deadline)
        assert len(slept) == 4
        assert max(slept) <= 0.5
