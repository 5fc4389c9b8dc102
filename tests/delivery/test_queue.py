from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.delivery import OUTCOMES, event, growth

from failpath_otel.delivery.queue import EventQueue
from failpath_otel.events.step import Status, StepEvent


def queued(queue: EventQueue) -> list[tuple[int, str]]:
    """What is queued, in order: attempt and status."""
    taken = queue.take(10_000)
    queue.give_back()
    return [(int(event.span_id or "0", 16), event.status) for _, event in taken]


def filled(capacity: int, *events: tuple[int, Status]) -> EventQueue:
    queue = EventQueue(capacity)
    for number, status in events:
        assert queue.add(event(number, status)) is None
    return queue


def test_events_leave_in_the_order_in_which_they_came() -> None:
    queue = filled(10, (1, "running"), (2, "running"), (1, "success"), (3, "skipped"))
    assert queued(queue) == [(1, "running"), (2, "running"), (1, "success"), (3, "skipped")]


def test_a_full_queue_first_evicts_a_running_event_whose_outcome_is_queued_too() -> None:
    queue = filled(3, (1, "running"), (2, "running"), (2, "error"))
    assert queue.add(event(3, "running")) == (event(2, "running"), "superseded")
    assert queued(queue) == [(1, "running"), (2, "error"), (3, "running")]


def test_a_full_queue_refuses_a_new_running_event() -> None:
    queue = filled(2, (1, "running"), (2, "running"))
    assert queue.add(event(3, "running")) == (event(3, "running"), "queue_full")
    assert queued(queue) == [(1, "running"), (2, "running")]


def test_an_outcome_takes_the_place_of_its_own_running_event() -> None:
    queue = filled(2, (1, "running"), (2, "running"))
    assert queue.add(event(1, "success")) == (event(1, "running"), "superseded")
    assert queued(queue) == [(2, "running"), (1, "success")]


def test_an_outcome_takes_the_place_of_the_newest_running_event() -> None:
    queue = filled(3, (1, "running"), (2, "running"), (3, "success"))
    assert queue.add(event(4, "error")) == (event(2, "running"), "queue_full")
    assert queued(queue) == [(1, "running"), (3, "success"), (4, "error")]


def test_among_outcomes_alone_the_new_one_is_dropped() -> None:
    queue = filled(2, (1, "success"), (2, "error"))
    assert queue.add(event(3, "success")) == (event(3, "success"), "queue_full")
    assert queued(queue) == [(1, "success"), (2, "error")]


def test_events_in_flight_are_not_dropped() -> None:
    queue = filled(2, (1, "skipped"), (2, "success"))
    queue.take(2)
    assert queue.add(event(3, "error")) == (event(3, "error"), "queue_full")
    assert queued(queue) == [(1, "skipped"), (2, "success")]


def test_an_outcome_is_let_in_above_the_bound_where_only_a_running_event_in_flight_matters_less() -> None:
    queue = filled(2, (1, "running"), (2, "success"))
    queue.take(2)
    assert queue.add(event(1, "success")) is None
    assert queue.add(event(3, "error")) == (event(3, "error"), "queue_full")
    assert queue.add(event(4, "running")) == (event(4, "running"), "queue_full")
    assert queue.remove_all([1, 2]) == 2
    assert queue.give_back() == []
    assert queued(queue) == [(1, "success")]


def test_what_an_outcome_was_let_in_for_is_dropped_as_soon_as_its_batch_is_given_back() -> None:
    queue = filled(3, (1, "running"), (2, "running"), (3, "success"))
    queue.take(3)
    assert [queue.add(event(number, "error")) for number in (1, 4)] == [None, None]
    assert queue.give_back() == [(event(1, "running"), "superseded"), (event(2, "running"), "queue_full")]
    assert queued(queue) == [(3, "success"), (1, "error"), (4, "error")]


def test_what_was_given_back_may_be_dropped_again() -> None:
    queue = filled(2, (1, "running"))
    queue.take(1)
    queue.add(event(1, "success"))
    queue.give_back()
    assert queue.add(event(2, "success")) == (event(1, "running"), "superseded")


def test_the_oldest_number_passes_the_newest_when_all_is_gone() -> None:
    queue = filled(3, (1, "success"), (2, "success"))
    assert (queue.oldest, queue.recorded) == (1, 2)
    queue.remove(1)
    assert queue.oldest == 2
    queue.remove(2)
    assert queue.oldest == 3


def test_removing_twice_does_nothing() -> None:
    queue = filled(1, (1, "running"))
    assert queue.remove(1) == event(1, "running")
    assert queue.remove(1) is None


def test_places_of_events_that_are_gone_are_given_free() -> None:
    """A queue through which events have passed for a long time is no longer than what is queued."""
    queue = EventQueue(100)
    number = 0

    def pass_through() -> None:
        nonlocal number
        for _ in range(500):
            for _ in range(50):
                number += 1
                assert queue.add(event(number)) is None
            queue.remove_all([taken for taken, _ in queue.take(50)])
            queue.give_back()

    assert growth(pass_through) < 50_000, "a place takes 8 bytes, and 25,000 events have passed"
    assert len(queue) == 0
    assert queue.oldest == number + 1


class QueueMachine(RuleBasedStateMachine):
    """Any order of adding, taking, settling and giving back, held against plain lists."""

    def __init__(self) -> None:
        super().__init__()
        self.capacity = 4
        self.queue = EventQueue(self.capacity)
        self.model: list[tuple[int, StepEvent]] = []
        self.in_flight: set[int] = set()
        self.recorded = self.numbered = self.gone = 0

    @rule(number=st.integers(1, 6), status=st.sampled_from(("running", *OUTCOMES)))
    def add(self, number: int, status: Status) -> None:
        incoming = event(number, status)
        if any(queued == incoming for _, queued in self.model):
            return  # the same event of the same attempt does not come twice
        running_in_flight = sum(e.status == "running" for n, e in self.model if n in self.in_flight)
        free = [(n, e) for n, e in self.model if n not in self.in_flight]
        overdrawn = len(self.model) - self.capacity
        dropped = self.queue.add(incoming)
        self.recorded += 1
        self.numbered += dropped is None or dropped[0] is not incoming
        if overdrawn < 0:
            assert dropped is None
            self.model.append((self.numbered, incoming))
            return
        if dropped is None:
            # Above the bound: an outcome, for a running event in flight, where nothing that waits matters less.
            assert incoming.is_outcome
            assert overdrawn < running_in_flight
            assert not [e for _, e in free if e.status == "running"]
            self.model.append((self.numbered, incoming))
            return
        victim, reason = dropped
        self.gone += 1
        outcomes = {e.span_id for _, e in self.model if e.is_outcome} | ({incoming.span_id} if incoming.is_outcome else set())
        superseded = [e for n, e in free if e.status == "running" and self._has_outcome_after(n, e, incoming)]
        if reason == "superseded":
            assert victim.span_id in outcomes
        elif superseded and not (incoming.status == "running" and not self._queued_superseded(free)):
            raise AssertionError(f"{superseded} should have gone before {victim}")
        if victim.is_outcome:
            assert incoming.is_outcome
            assert victim is incoming
            assert not [e for _, e in free if e.status == "running"]
            assert overdrawn >= running_in_flight
        if victim is not incoming:
            number_of_victim = next(n for n, e in self.model if e is victim)
            assert number_of_victim not in self.in_flight
            self.model = [(n, e) for n, e in self.model if e is not victim]
            self.model.append((self.numbered, incoming))

    def _has_outcome_after(self, number: int, running: StepEvent, incoming: StepEvent) -> bool:
        later = [e for n, e in self.model if n > number and e.is_outcome and e.span_id == running.span_id]
        return bool(later) or (incoming.is_outcome and incoming.span_id == running.span_id)

    def _queued_superseded(self, free: list[tuple[int, StepEvent]]) -> bool:
        return any(
            e.status == "running" and any(m > n and o.is_outcome and o.span_id == e.span_id for m, o in self.model)
            for n, e in free
        )

    @precondition(lambda self: not self.in_flight)
    @rule(count=st.integers(1, 5))
    def take(self, count: int) -> None:
        taken = self.queue.take(count)
        assert taken == self.model[:count]
        self.in_flight = {number for number, _ in taken}

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        # All that was taken, one by one or at once, sent or refused: nothing else happens to a batch but being given back.
        one_by_one = data.draw(st.permutations(sorted(self.in_flight)))
        if data.draw(st.booleans()):
            assert self.queue.remove_all(one_by_one) == len(one_by_one)
            one_by_one = []
            self.gone += len(self.in_flight)
            self.model = [(n, e) for n, e in self.model if n not in self.in_flight]
        for number in one_by_one:
            assert self.queue.remove(number) is not None
            self.model = [(n, e) for n, e in self.model if n != number]
            self.gone += 1
        self.give_back()

    @rule()
    def give_back(self) -> None:
        self.in_flight = set()
        for victim, reason in self.queue.give_back():
            (number,) = [n for n, e in self.model if e is victim]
            assert len(self.model) > self.capacity
            assert victim.status == "running"
            assert (reason == "superseded") == self._has_outcome_after(number, victim, victim)
            assert reason == "superseded" or not self._queued_superseded(self.model)
            self.model = [(n, e) for n, e in self.model if n != number]
            self.gone += 1
        assert len(self.model) <= self.capacity

    @invariant()
    def holds(self) -> None:
        running_in_flight = sum(e.status == "running" for n, e in self.model if n in self.in_flight)
        assert len(self.queue) == len(self.model) <= self.capacity + running_in_flight
        assert self.recorded == self.gone + len(self.model)
        assert self.queue.recorded == self.numbered
        assert self.queue.oldest == (self.model[0][0] if self.model else self.numbered + 1)
        assert all(number in self.queue for number, _ in self.model)


TestQueueMachine = QueueMachine.TestCase


@given(
    st.integers(1, 5), st.lists(st.tuples(st.integers(1, 8), st.sampled_from(("running", "success"))), unique=True, max_size=40)
)
def test_an_outcome_is_only_dropped_when_nothing_but_outcomes_is_queued(
    capacity: int, incoming: list[tuple[int, Status]]
) -> None:
    queue = EventQueue(capacity)
    for number, status in incoming:
        before = queued(queue)
        dropped = queue.add(event(number, status))
        if dropped is not None and dropped[0].is_outcome:
            assert all(kind != "running" for _, kind in before)
