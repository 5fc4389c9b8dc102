"""The statistics that one transaction changes, added up before they are written."""

from __future__ import annotations

from collections import Counter
from typing import Final

from sqlalchemy import Connection

from failpath_otel.server import tables
from failpath_otel.server.histogram import bucket_of
from failpath_otel.server.projection import Projection

_STEP_DURATIONS: Final = tables.Bulk(tables.step_durations, on_conflict=tables.added(tables.step_durations))
_RUN_DURATIONS: Final = tables.Bulk(tables.run_durations, on_conflict=tables.added(tables.run_durations))
_RUN_COUNTS: Final = tables.Bulk(tables.run_counts, on_conflict=tables.added(tables.run_counts))

_Counts = Counter[tuple[int, int]]


class Tally:
    """What a transaction adds to the counts."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._step_durations: _Counts = Counter()
        self._run_durations: _Counts = Counter()
        self._run_counts: _Counts = Counter()

    def attempt(self, step_id: int, duration_us: int) -> None:
        """An attempt of this step took so long."""
        self._step_durations[step_id, bucket_of(duration_us)] += 1

    def run(self, flow_id: int, before: Projection | None, after: Projection) -> None:
        """A run of this flow changed, or is new."""
        if before is not None:
            self._count(flow_id, int(before.stands), before.duration_us, -1)
        self._count(flow_id, int(after.stands), after.duration_us, 1)

    def write(self, connection: Connection) -> None:
        """Adds all to the tables."""
        for bulk, counts in (
            (_STEP_DURATIONS, self._step_durations),
            (_RUN_DURATIONS, self._run_durations),
            (_RUN_COUNTS, self._run_counts),
        ):
            bulk.insert(connection, sorted((owner, what, n) for (owner, what), n in counts.items() if n))

    def _count(self, flow_id: int, stands: int, duration_us: int | None, n: int) -> None:
        self._run_counts[flow_id, stands] += n
        if duration_us is not None:
            self._run_durations[flow_id, bucket_of(duration_us)] += n
