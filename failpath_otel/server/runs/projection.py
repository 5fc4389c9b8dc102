"""A folded run → the one row by which lists, filters and statistics know it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import msgspec

from failpath_otel.server.runs.derive import StoredState, stored_state
from failpath_otel.server.runs.fold import ERROR, Fact, FoldedAttempt

StepRanks = dict[str, int]


class Projection(msgspec.Struct, frozen=True, gc=False):
    """What a list shows of a run. Times are whole microseconds since the Unix epoch.

    Attributes:
        ended_us: The latest end of the steps' last attempts; ``None`` while one runs.
        ranks: Step key → the rank of its last attempt's status.
        running_since: Step key → when its last attempt began, of the steps that run.
        first_error: The earliest failure that no later attempt healed.
    """

    state: StoredState
    started_us: int
    ended_us: int | None
    ranks: StepRanks
    running_since: dict[str, int]
    first_error: Fact | None

    @property
    def duration_us(self) -> int | None:
        """How long the run took, where it came to an end: it failed or is complete, and nothing runs."""
        if self.ended_us is None or self.state is StoredState.WAITING:
            return None
        return self.ended_us - self.started_us

    def judged(self, declared: AbstractSet[str]) -> Projection:
        """The same run under another declaration."""
        return msgspec.structs.replace(self, state=stored_state(self.ranks, declared))


def project(steps: Mapping[str, tuple[FoldedAttempt, ...]], declared: AbstractSet[str]) -> Projection:
    """The projection of a folded run with at least one step; ``declared`` are the steps that it should have."""
    ranks: StepRanks = {}
    running_since: dict[str, int] = {}
    started: int | None = None
    ended: int | None = None
    failed: FoldedAttempt | None = None
    for key, attempts in steps.items():
        last = attempts[-1]
        ranks[key] = last.status
        first_start = attempts[0].start_us
        if started is None or first_start < started:
            started = first_start
        if last.end_us is None:
            running_since[key] = last.start_us
        elif ended is None or last.end_us > ended:
            ended = last.end_us
        if last.status == ERROR and (failed is None or _earlier(last, failed)):
            failed = last
    return Projection(
        stored_state(ranks, declared),
        started or 0,
        None if running_since else ended,
        ranks,
        running_since,
        None if failed is None else failed.decided_by,
    )


def _earlier(left: FoldedAttempt, right: FoldedAttempt) -> bool:
    a, b = left.decided_by, right.decided_by
    return (a.time_us, a.step_key, a.event_id) < (b.time_us, b.step_key, b.event_id)
