"""What is derived when a run is read: its status, what is missing and why, what is stuck. Pure; nothing here is stored.

A run is ``error`` if a step's last attempt failed, else ``running`` if one runs, else ``success`` if every declared and every
discovered step is success or skipped, else ``running`` within the quiet window since the last arrival, else ``incomplete``.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import IntEnum
from typing import Final

import msgspec

from failpath_otel.events.step import Status
from failpath_otel.flows import Flow
from failpath_otel.server.api.runs import MissingReason, RunStatus, StepStatus
from failpath_otel.server.runs.fold import ERROR, ORDER, RUNNING, FoldedAttempt
from failpath_otel.server.runs.histogram import Histogram

QUIET_US: Final = 30_000_000
"""How long after the last arrival, by the server's clock, more of a run is awaited."""
STUCK_SAMPLES: Final = 20
"""From how many durations on a step's own 95th percentile tells what is stuck."""
STUCK_FLOOR_US: Final = 10_000_000
STUCK_FACTOR: Final = 3


class StoredState(IntEnum):
    """What the events of a run say without a clock; the store keeps it, so that a status can be asked for in SQL."""

    ERROR = 0
    RUNNING = 1
    COMPLETE = 2
    WAITING = 3


class StepState(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a run. ``attempts`` are in the order of their starts, none where it is missing."""

    step_key: str
    declared: bool
    status: StepStatus
    stuck: bool = False
    missing_reason: MissingReason | None = None
    attempts: tuple[FoldedAttempt, ...] = ()


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """A run as it stands now; ``steps`` in flow order, then discovered ones by their first start."""

    status: RunStatus
    stuck: bool
    steps: tuple[StepState, ...]


def declared_keys(flow: Flow | None) -> frozenset[str]:
    """The steps that can be missing: none where the flow is not declared."""
    return frozenset() if flow is None else flow.step_keys


def stored_state(ranks: Mapping[str, int], declared: AbstractSet[str]) -> StoredState:
    """The state of a run, from the rank of each reported step's last attempt."""
    worst = StoredState.COMPLETE if ranks.keys() >= declared else StoredState.WAITING
    for rank in ranks.values():
        if rank == ERROR:
            return StoredState.ERROR
        if rank == RUNNING:
            worst = StoredState.RUNNING
    return worst


def run_status(state: StoredState, last_arrival_us: int, now_us: int) -> RunStatus:
    """The status of a run at this moment."""
    if state is StoredState.ERROR:
        return "error"
    if state is StoredState.COMPLETE:
        return "success"
    if state is StoredState.RUNNING or is_open(last_arrival_us, now_us):
        return "running"
    return "incomplete"


def is_open(last_arrival_us: int, now_us: int) -> bool:
    """True while the quiet window since the last arrival lasts."""
    return now_us - last_arrival_us <= QUIET_US


def stuck_limit_us(durations: Histogram | None, stuck_after_us: int) -> int:
    """How long a step may run before it counts as stuck."""
    if durations is None or durations.total < STUCK_SAMPLES:
        return stuck_after_us
    return max(STUCK_FLOOR_US, int(STUCK_FACTOR * durations.percentile(0.95)))


def derive(
    steps: Mapping[str, tuple[FoldedAttempt, ...]],
    flow: Flow | None,
    *,
    now_us: int,
    last_arrival_us: int,
    ever_reported: AbstractSet[str],
    durations: Mapping[str, Histogram],
    stuck_after_us: int,
) -> RunState:
    """What the API shows of a folded run.

    Args:
        steps: As `fold.fold` gives them.
        flow: The flow's declaration, if there is one.
        now_us: The server's clock.
        last_arrival_us: When the last event of this run arrived, by the same clock.
        ever_reported: The steps that any run of this flow ever reported.
        durations: Step key → how long its attempts took.
        stuck_after_us: The limit for steps with too few durations.
    """
    ranks = {key: attempts[-1].status for key, attempts in steps.items()}
    state = stored_state(ranks, declared_keys(flow))
    awaited = RUNNING in ranks.values() or is_open(last_arrival_us, now_us)
    states: list[StepState] = []
    for key in () if flow is None else flow.ordered_keys:
        if key not in steps and flow is not None:
            reason = _missing_reason(key, flow, ranks, ever_reported, awaited=awaited)
            states.append(StepState(step_key=key, declared=True, status="missing", missing_reason=reason))
        else:
            states.append(_reported(key, steps[key], now_us, durations.get(key), stuck_after_us, declared=True))
    discovered = sorted(steps.keys() - declared_keys(flow), key=lambda key: (steps[key][0].start_us, key))
    states.extend(_reported(key, steps[key], now_us, durations.get(key), stuck_after_us, declared=False) for key in discovered)
    return RunState(
        status=run_status(state, last_arrival_us, now_us),
        stuck=any(step.stuck for step in states),
        steps=tuple(states),
    )


def _reported(
    key: str,
    attempts: tuple[FoldedAttempt, ...],
    now_us: int,
    durations: Histogram | None,
    stuck_after_us: int,
    *,
    declared: bool,
) -> StepState:
    last = attempts[-1]
    stuck = last.status == RUNNING and now_us - last.start_us > stuck_limit_us(durations, stuck_after_us)
    status: Status = ORDER[last.status]
    return StepState(step_key=key, declared=declared, status=status, stuck=stuck, attempts=attempts)


def _missing_reason(
    key: str, flow: Flow, ranks: Mapping[str, int], ever_reported: AbstractSet[str], *, awaited: bool
) -> MissingReason:
    if key not in ever_reported:
        return "never_instrumented"
    if any(ranks.get(before) == ERROR for before in flow.ancestors(key)):
        return "upstream_error"
    if any(after in ranks for after in flow.descendants(key)):
        return "passed_over"
    return "not_yet" if awaited else "overdue"
