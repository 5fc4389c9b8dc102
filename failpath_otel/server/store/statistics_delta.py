"""The statistics that one transaction changes, added up before they are written."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from failpath_otel.server.runs.histogram import bucket_of
from failpath_otel.server.runs.projection import Projection
from failpath_otel.server.store import tables

_STEP_DURATIONS: Final = tables.Bulk(tables.step_durations, on_conflict=tables.added(tables.step_durations))
_RUN_DURATIONS: Final = tables.Bulk(tables.run_durations, on_conflict=tables.added(tables.run_durations))
_RUN_COUNTS: Final = tables.Bulk(tables.run_counts, on_conflict=tables.added(tables.run_counts))

# An owner's id and a bucket or state in one number: cheaper to count by than a pair.
_SHIFT: Final = 16
_MASK: Final = (1 << _SHIFT) - 1


class StatisticsDelta:
    """What a transaction adds to the counts."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._step_durations: dict[int, int] = {}
        self._run_durations: dict[int, int] = {}
        self._run_counts: dict[int, int] = {}

    def attempt(self, step_id: int, duration_us: int, n: int = 1) -> None:
        """An attempt of this step took so long; with ``n`` -1 one that is deleted did."""
        key = step_id << _SHIFT | bucket_of(duration_us)
        self._step_durations[key] = self._step_durations.get(key, 0) + n

    def run(self, flow_id: int, before: Projection | None, after: Projection) -> None:
        """A run of this flow changed, or is new."""
        if before is not None:
            self._count(flow_id, int(before.state), before.duration_us, -1)
        self._count(flow_id, int(after.state), after.duration_us, 1)

    def gone(self, flow_id: int, before: Projection) -> None:
        """A run of this flow is deleted."""
        self._count(flow_id, int(before.state), before.duration_us, -1)

    def write(self, connection: Connection) -> None:
        """Adds all to the tables."""
        for bulk, counts in (
            (_STEP_DURATIONS, self._step_durations),
            (_RUN_DURATIONS, self._run_durations),
            (_RUN_COUNTS, self._run_counts),
        ):
            bulk.insert(connection, [(key >> _SHIFT, key & _MASK, n) for key, n in sorted(counts.items()) if n])

    def _count(self, flow_id: int, state: int, duration_us: int | None, n: int) -> None:
        key = flow_id << _SHIFT | state
        self._run_counts[key] = self._run_counts.get(key, 0) + n
        if duration_us is not None:
            key = flow_id << _SHIFT | bucket_of(duration_us)
            self._run_durations[key] = self._run_durations.get(key, 0) + n
