"""Events of a run → its steps and their attempts. Pure: any order, with duplicates, gives one result.

The rules: facts are sorted by (client time, running < skipped < success < error, event id). The same span id is the same
attempt as long as the start is the same too: a service that seeds the generator of its ids has the same ids come again. Only
without span ids does ``running`` after an outcome open a new attempt. An outcome without length, as
``record_step`` gives, ends the attempt that is open when it comes. Within an attempt an outcome beats
``running``, and the latest outcome wins. Attempts stand in the order of their starts, and a step is what its last one is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from failpath_otel.events.step import Status, StepEvent

ORDER: Final[tuple[Status, ...]] = ("running", "skipped", "success", "error")
"""Statuses by their rank at one moment; facts and tables hold the rank."""
RANK: Final[Mapping[str, int]] = {status: rank for rank, status in enumerate(ORDER)}
RUNNING: Final = 0
SKIPPED: Final = 1
SUCCESS: Final = 2
ERROR: Final = 3

EventKey = tuple[str, int]
"""By which an event is known within its run: its id, and the start of its attempt (`start_key`)."""

SUMMARY_CHARS: Final = 500
"""How much of an error message a summary keeps."""


class Fact(msgspec.Struct, frozen=True, gc=False):
    """What the fold needs to know of an event. Times are whole microseconds since the Unix epoch.

    Attributes:
        status: The rank of the status within `ORDER`.
        started_us: On outcomes, the attempt's start where the event tells it.
        error_message: Shortened to `SUMMARY_CHARS`.
    """

    event_id: str
    step_key: str
    status: int
    time_us: int
    started_us: int | None = None
    span_id: str | None = None
    error_name: str | None = None
    error_message: str | None = None

    @property
    def start_us(self) -> int | None:
        """When the attempt started, where the event tells."""
        return self.time_us if self.status == RUNNING else self.started_us

    @property
    def key(self) -> EventKey:
        """By which the event is known within its run."""
        return self.event_id, start_key(self.status, self.time_us, self.started_us)


class FoldedAttempt(msgspec.Struct, frozen=True, gc=False):
    """One try of a step.

    Attributes:
        status: The rank of the status within `ORDER`.
        start_us: The earliest start that is known; where none is, the time of the outcome.
        end_us: ``None`` while it runs; never before ``start_us``.
        duration_us: ``None`` while it runs, or where no event tells the start.
        decided_by: The fact that gave the status.
        event_keys: Of every event of this attempt, by time.
    """

    status: int
    start_us: int
    end_us: int | None
    duration_us: int | None
    decided_by: Fact
    event_keys: tuple[EventKey, ...]


def start_key(status: int, time_us: int, started_us: int | None) -> int:
    """The start of an event's attempt as a part of its identity; -1 where the event does not tell."""
    start = time_us if status == RUNNING else started_us
    return -1 if start is None else start


def key_of(event: StepEvent) -> EventKey:
    """By which an event is known within its run."""
    started = event.started_at
    start = event.timestamp if event.status == "running" else started
    return event.event_id, -1 if start is None else start // 1000


def fact_of(event: StepEvent) -> Fact:
    """The facts of an event."""
    error = event.error
    started = event.started_at
    return Fact(
        event.event_id,
        event.step_key,
        RANK[event.status],
        event.timestamp // 1000,
        None if started is None else started // 1000,
        event.span_id,
        None if error is None else error.name,
        None if error is None else error.message[:SUMMARY_CHARS],
    )


def fold(facts: Iterable[Fact]) -> dict[str, tuple[FoldedAttempt, ...]]:
    """Step key → its attempts in the order of their starts, at least one each."""
    by_step: dict[str, list[Fact]] = {}
    for fact in facts:
        by_step.setdefault(fact.step_key, []).append(fact)
    return {key: fold_step(own) for key, own in by_step.items()}


def fold_step(facts: Sequence[Fact]) -> tuple[FoldedAttempt, ...]:
    """The attempts of one step in the order of their starts. ``facts`` are all of this step and at least one."""
    if len(facts) == 1:
        return (_attempt(facts),)
    attempts = [_attempt(group) for group in _groups(_unique(sorted(facts, key=_order)))]
    attempts.sort(key=_by_start)
    return tuple(attempts)


def _order(fact: Fact) -> tuple[int, int, str, int, str]:
    # The last two only matter where one event id stands for two contents: then, too, the order must not depend on arrival.
    return fact.time_us, fact.status, fact.event_id, -1 if fact.started_us is None else fact.started_us, fact.span_id or ""


def _by_start(attempt: FoldedAttempt) -> tuple[int, tuple[int, int, str, int, str]]:
    return attempt.start_us, _order(attempt.decided_by)


def _unique(ordered: Iterable[Fact]) -> list[Fact]:
    known: dict[EventKey, Fact] = {}
    for fact in ordered:
        known.setdefault(fact.key, fact)
    return list(known.values())


def _groups(ordered: Sequence[Fact]) -> list[list[Fact]]:
    by_span: dict[str, list[Fact]] = {}
    loose: list[list[Fact]] = []
    ended = True
    for fact in ordered:
        if fact.span_id:
            by_span.setdefault(fact.span_id, []).append(fact)
            continue
        if not loose or (ended and fact.status == RUNNING):
            loose.append([])
            ended = False
        loose[-1].append(fact)
        ended = ended or fact.status != RUNNING
    attempts = [attempt for own in by_span.values() for attempt in _attempts_of_span(own)]
    attempts.sort(key=lambda attempt: _order(attempt[0]))
    return [*_ended_by_hand(attempts), *loose]


def _attempts_of_span(facts: list[Fact]) -> list[list[Fact]]:
    """The facts with one span id, by attempts: mostly it is one.

    An outcome whose start no ``running`` has belongs to the newest one before it that has no outcome, as that of a sender
    whose two times differ; one that tells no start, to the newest attempt before it.
    """
    first = facts[0].start_us
    if first is not None and all(fact.start_us == first for fact in facts):
        return [facts]
    by_start: dict[int, list[Fact]] = {}
    for fact in facts:
        if fact.status == RUNNING:
            by_start.setdefault(fact.time_us, []).append(fact)
    left: list[Fact] = []
    for fact in facts:
        if fact.status != RUNNING:
            own = by_start.get(-1 if fact.started_us is None else fact.started_us)
            left.append(fact) if own is None else own.append(fact)
    for fact in left:
        waiting = [start for start, own in by_start.items() if own[-1].status == RUNNING and start <= fact.time_us]
        if waiting:
            by_start[max(waiting)].append(fact)
        elif fact.started_us is None and by_start:
            by_start[max((start for start in by_start if start <= fact.time_us), default=min(by_start))].append(fact)
        else:
            by_start.setdefault(fact.time_us if fact.started_us is None else fact.started_us, []).append(fact)
    return [sorted(own, key=_order) for own in by_start.values()]


def _ended_by_hand(groups: list[list[Fact]]) -> list[list[Fact]]:
    """``groups``, of one span each, with outcomes without length put to the attempts that they end.

    ``record_step("running")`` and ``record_step("success")`` are two spans and one attempt.
    """
    open_groups = [group for group in groups if all(fact.status == RUNNING for fact in group)]
    if not open_groups or len(open_groups) == len(groups):
        return groups
    left: list[list[Fact]] = []
    for group in groups:  # in the order of their first facts, since the facts are sorted
        earlier = [own for own in open_groups if own[0].time_us <= group[0].time_us] if _is_point(group) else []
        if earlier:
            open_groups.remove(earlier[-1])
            earlier[-1].extend(group)
        else:
            left.append(group)
    return left


def _is_point(group: Sequence[Fact]) -> bool:
    return all(fact.status >= SUCCESS and fact.started_us == fact.time_us for fact in group)


def _attempt(group: Sequence[Fact]) -> FoldedAttempt:
    """The attempt that ``group`` tells of, sorted by time."""
    if len(group) == 1:
        fact = group[0]
        if fact.status == RUNNING:
            return FoldedAttempt(RUNNING, fact.time_us, None, None, fact, (fact.key,))
        start = fact.time_us if fact.started_us is None else fact.started_us
        end = max(fact.time_us, start)
        return FoldedAttempt(fact.status, start, end, None if fact.started_us is None else end - start, fact, (fact.key,))
    starts = [time for fact in group if (time := fact.time_us if fact.status == RUNNING else fact.started_us) is not None]
    outcomes = [fact for fact in group if fact.status != RUNNING]
    keys = tuple(fact.key for fact in group)
    if not outcomes:
        return FoldedAttempt(RUNNING, min(starts), None, None, group[0], keys)
    decided = outcomes[-1]
    start = min(starts) if starts else decided.time_us
    end = max(decided.time_us, start)
    return FoldedAttempt(decided.status, start, end, end - start if starts else None, decided, keys)
