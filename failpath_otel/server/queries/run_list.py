"""Stored rows of runs → the rows of lists, strips and grids. Nothing of a run but its one row is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec
from sqlalchemy import Connection

from failpath_otel.events.wire import format_time
from failpath_otel.server.api.runs import CellStatus, GridRun, RunMark, RunRow, RunStatus, StepCounts, StuckStep
from failpath_otel.server.queries.run_detail import first_error, time_or_none
from failpath_otel.server.queries.statistics import duration_histograms, step_keys
from failpath_otel.server.runs.derive import StoredState, run_status, stuck_limit_us
from failpath_otel.server.runs.fold import ORDER
from failpath_otel.server.store.tables import Row

_decode_counts: Final = msgspec.json.Decoder(dict[str, int]).decode


class Moment:
    """The moment at which runs are looked at: the clock, and how long steps may run."""

    def __init__(self, now_us: int, stuck_after_us: int) -> None:
        """``stuck_after_us`` holds for steps with few samples."""
        self.now_us: Final = now_us
        self.stuck_after_us: Final = stuck_after_us
        self._limits: dict[int, dict[str, int]] = {}

    def learn(self, connection: Connection, runs: Iterable[Row]) -> None:
        """Reads how long the steps of those flows may take of which one of these runs has a running step."""
        for flow_id in {run.flow_id for run in runs if run.running_since is not None} - self._limits.keys():
            durations = duration_histograms(connection, flow_id)
            self._limits[flow_id] = {
                key: stuck_limit_us(durations.get(step_id), self.stuck_after_us)
                for step_id, key in step_keys(connection, flow_id).items()
            }

    def status(self, run: Row) -> RunStatus:
        """The run's status now."""
        return run_status(StoredState(run.stands), run.last_arrival_us, self.now_us)

    def stuck_steps(self, run: Row) -> Mapping[str, int]:
        """The steps that have been running for too long, and since when, of a run that `learn` has seen."""
        if run.running_since is None:
            return {}
        limits = self._limits[run.flow_id]
        since = _decode_counts(run.running_since)
        return {key: start for key, start in since.items() if self.now_us - start > limits.get(key, self.stuck_after_us)}


def run_row(run: Row, slug: str, declared: AbstractSet[str], moment: Moment) -> RunRow:
    """A run within a list; ``declared`` are the steps that it should have."""
    ranks = _decode_counts(run.ranks)
    counts = dict.fromkeys(ORDER, 0)
    for rank in ranks.values():
        counts[ORDER[rank]] += 1
    status = moment.status(run)
    ended_us = None if status == "running" else run.ended_us
    stuck = moment.stuck_steps(run)
    return RunRow(
        flow_key=slug,
        run_id=run.run_key,
        status=status,
        stuck=bool(stuck),
        started_at=format_time(run.started_us * 1000),
        ended_at=time_or_none(ended_us),
        duration_ms=_millis_between(run.started_us, ended_us),
        steps=StepCounts(**counts, missing=len(declared - ranks.keys())),
        first_error=first_error(run),
        stuck_step=_longest(stuck),
    )


def run_mark(run: Row, moment: Moment) -> RunMark:
    """A run within a strip."""
    status = moment.status(run)
    return RunMark(
        run_id=run.run_key,
        status=status,
        stuck=bool(moment.stuck_steps(run)),
        started_at=format_time(run.started_us * 1000),
        duration_ms=_millis_between(run.started_us, None if status == "running" else run.ended_us),
    )


class Grid:
    """Makes the rows of a grid, with a cell for each of some steps."""

    def __init__(self, step_keys: Sequence[str], moment: Moment) -> None:
        """``step_keys`` in the order of the cells."""
        self._step_keys = step_keys
        self._moment = moment
        # Most runs of a flow go alike, and then these cells are made once.
        self._known: dict[str, list[CellStatus]] = {}

    def run(self, run: Row) -> GridRun:
        """A run within the grid."""
        status = self._moment.status(run)
        ended_us = None if status == "running" else run.ended_us
        stuck = self._moment.stuck_steps(run)
        return GridRun(
            run_id=run.run_key,
            status=status,
            stuck=bool(stuck),
            started_at=format_time(run.started_us * 1000),
            ended_at=time_or_none(ended_us),
            duration_ms=_millis_between(run.started_us, ended_us),
            cells=self._cells(run.ranks, stuck),
            first_error=first_error(run),
        )

    def _cells(self, encoded: str, stuck: Mapping[str, int]) -> list[CellStatus]:
        known = None if stuck else self._known.get(encoded)
        if known is not None:
            return known
        ranks = _decode_counts(encoded)
        cells: list[CellStatus] = []
        for key in self._step_keys:
            rank = ranks.get(key)
            if rank is None:
                cells.append("missing")
            else:
                cells.append("stuck" if key in stuck else ORDER[rank])
        if not stuck:
            self._known[encoded] = cells
        return cells


def _longest(stuck: Mapping[str, int]) -> StuckStep | None:
    if not stuck:
        return None
    start_us, key = min((start_us, key) for key, start_us in stuck.items())
    return StuckStep(step_key=key, started_at=format_time(start_us * 1000))


def _millis_between(started_us: int, ended_us: int | None) -> float | None:
    return None if ended_us is None else (ended_us - started_us) / 1000
