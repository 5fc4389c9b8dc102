"""Division alone, against a destination that is played: what is given up, what is not, and how many requests it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from failpath_otel.delivery.division import CONTROL, HOPELESS_SECONDS, Division

BATCH = 2048


@dataclass
class Played:
    """A queue before a destination. ``fails`` and ``refuses`` say of what is tried that it is not taken."""

    waiting: list[int]
    fails: Callable[[Sequence[int]], bool] = lambda numbers: False
    refuses: Callable[[Sequence[int]], bool] = lambda numbers: False
    now: float = 0.0
    tries: list[list[int]] = field(default_factory=list)
    waits: int = 0
    taken: list[int] = field(default_factory=list)
    given_up: list[int] = field(default_factory=list)
    controlled: bool = True
    control: bool = False

    def __post_init__(self) -> None:
        self.division = Division(BATCH, lambda: self.now)

    def turn(self) -> None:
        """One try, and what follows; without one the time goes on."""
        oldest = self.waiting[: BATCH + self.division.suspects]
        if self.division.at_rest:
            self.division.begin(oldest)
            chosen: Sequence[int] = oldest
        else:
            chosen = self.division.choose(oldest, control=self.control)
        if not chosen:
            assert 0 < self.division.wait() < math.inf
            self.now += self.division.wait()
            return
        self.now += 0.05
        self.tries.append(list(chosen))
        if self.refuses(chosen):
            gone = self.division.refused().give_up
            self.given_up += gone
        elif self.fails(chosen):
            verdict = self.division.failed()
            gone = verdict.give_up
            self.given_up += gone
            self.waits += verdict.wait
        else:
            self.division.was_taken()
            gone = [] if self.division.tries_control else chosen
            self.taken += gone
            self.control = self.controlled and not self.division.at_rest
        self.waiting = [number for number in self.waiting if number not in set(gone)]

    def play(self, at_most: int) -> None:
        for _ in range(at_most):
            if not self.waiting:
                return
            self.turn()
        raise AssertionError(f"{len(self.waiting)} still wait after {at_most} turns")


def having(*bad: int) -> Callable[[Sequence[int]], bool]:
    """True of what has one of these among it."""
    return lambda numbers: not set(bad).isdisjoint(numbers)


@pytest.mark.parametrize("bad", [1, 2, 700, 1024, 1025, 2047, 2048, 2500, 3000])
def test_one_event_that_always_fails_is_given_up_and_all_others_are_taken(bad: int) -> None:
    played = Played(list(range(1, 3001)), fails=having(bad))
    played.play(60)
    assert played.given_up == [bad]
    assert sorted(played.taken) == [number for number in range(1, 3001) if number != bad]
    assert len(played.tries) <= 2 * math.log2(BATCH) + 16
    assert played.waits <= 4, "the destination is left alone before it is known to be there, and not after"


@pytest.mark.parametrize("bad", [1, 900, 2048])
def test_one_event_that_is_refused_is_given_up_at_once(bad: int) -> None:
    played = Played(list(range(1, BATCH + 1)), refuses=having(bad))
    played.play(40)
    assert played.given_up == [bad]
    assert len(played.taken) == BATCH - 1
    assert len(played.tries) <= 2 * math.log2(BATCH) + 1


def test_an_outage_gives_nothing_up_and_is_asked_by_one_event_at_a_time() -> None:
    played = Played(list(range(1, 3001)), fails=lambda numbers: True)
    for _ in range(500):
        played.turn()
    assert played.waits == 500, "each failure is followed by a pause"
    assert {len(tried) for tried in played.tries[3:]} == {1}
    assert len({tuple(tried) for tried in played.tries[3:]}) > 400, "not always the same, which may be a bad one"
    played.fails = lambda numbers: False
    played.play(10)
    assert (sorted(played.taken), played.given_up) == (list(range(1, 3001)), [])


@given(
    bad=st.sets(st.integers(1, 300), max_size=60),
    refused=st.sets(st.integers(1, 300), max_size=60),
    up=st.lists(st.booleans(), max_size=200),
    size=st.integers(1, 300),
)
@example(bad=set(), refused={1, 7, 37, 92, 93, 123}, up=[False], size=162)
def test_only_bad_events_are_given_up_however_the_destination_comes_and_goes(
    bad: set[int], refused: set[int], up: list[bool], size: int
) -> None:
    """Where it goes away for a while, good events may fail alone too; it takes four times, with others taken in between."""
    times = iter(up)
    state = True

    def refuses(numbers: Sequence[int]) -> bool:
        nonlocal state
        # What is down stays down for as long as it takes to be noticed: a flip after every request is another matter.
        if len(played.tries) % 40 == 0:
            state = next(times, True)
        return state and not refused.isdisjoint(numbers)

    def fails(numbers: Sequence[int]) -> bool:
        return not state or not bad.isdisjoint(numbers)

    played = Played(list(range(1, size + 1)), fails=fails, refuses=refuses)
    good = [number for number in range(1, size + 1) if number not in bad | refused]
    for _ in range(20_000):
        if not set(played.waiting) - bad - refused:
            break
        played.turn()
    assert set(good).isdisjoint(played.given_up)
    assert sorted(set(played.taken)) == good


@given(bad=st.sets(st.integers(1, 1000), max_size=8))
def test_the_cost_is_the_logarithm_of_the_batch_for_each(bad: set[int]) -> None:
    played = Played(list(range(1, 1001)), fails=having(*bad))
    played.play(10_000)
    assert set(played.given_up) == bad
    assert len(played.tries) <= 8 + (2 * math.ceil(math.log2(1000)) + 7) * len(bad)


def test_an_event_alone_is_never_given_up_for_failing() -> None:
    """There is nothing beside it that could show whether it is the event or the destination."""
    played = Played([1], fails=having(1))
    for _ in range(100):
        played.turn()
    assert (played.given_up, played.waits) == ([], 100)
    played.waiting.append(2)
    played.play(20)
    assert (played.taken, played.given_up) == ([2], [1])


def test_what_was_taken_is_sent_again_where_nothing_else_comes_that_could_show_that_the_destination_is_there() -> None:
    played = Played([1, 2], fails=having(1))
    played.play(20)
    assert played.tries == [[1, 2]] * 3 + [[2], [1], [CONTROL], [1], [CONTROL], [1], [CONTROL], [1]]
    assert played.now > 1.7, "it is tried again after a while each time"
    gone = Played([1, 2], fails=lambda numbers: 1 in numbers or (CONTROL in numbers and len(gone.tries) < 30))
    gone.play(100)
    assert (gone.taken, gone.given_up) == ([2], [1])
    assert gone.now > 150, "longer and longer while the destination is away"


def test_without_an_event_that_was_taken_others_are_waited_for() -> None:
    played = Played([1, 2], fails=having(1), controlled=False)
    for number in range(3, 6):
        for _ in range(20):
            played.turn()
        assert played.given_up == []
        played.waiting.append(number)
    played.play(20)
    assert (played.taken, played.given_up) == ([2, 3, 4, 5], [1])


def test_what_failed_alone_does_not_keep_later_events() -> None:
    played = Played(list(range(1, 5)), fails=having(2))
    for later in range(100, 300, 2):
        played.turn()
        played.waiting += [later, later + 1]
    assert played.given_up == [2]
    assert set(range(100, 190)) <= set(played.taken)


def test_where_everything_is_refused_a_batch_costs_few_requests_and_the_next_ones_one() -> None:
    played = Played(list(range(1, 10 * BATCH + 1)), refuses=lambda numbers: True)
    played.play(60)
    assert (played.taken, len(played.given_up)) == ([], 10 * BATCH)
    assert len(played.tries) <= 1 + 2 * 12 + 5 + 9
    played.now += HOPELESS_SECONDS
    played.waiting = list(range(100_000, 100_000 + BATCH))
    played.refuses = having(100_007)
    played.given_up.clear()
    played.play(60)
    assert played.given_up == [100_007], "after a while batches are divided again"


def test_parts_that_went_meanwhile_are_passed_over() -> None:
    """Starts go from a queue that is full."""
    played = Played(list(range(1, 101)), refuses=having(60))
    played.turn()
    played.waiting = [number for number in played.waiting if not 1 <= number <= 55]
    played.play(40)
    assert played.given_up == [60]
    assert sorted(played.taken) == [*range(56, 60), *range(61, 101)]
