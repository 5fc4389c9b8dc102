"""Lists that no index gives: runs are gone through, newest first, for a bounded time, and the answer says how far that came."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection

from failpath_otel.server.queries.cursor import Cursor
from failpath_otel.server.queries.pages import Place, RunFilter, find_runs, place_of
from failpath_otel.server.queries.run_list import Moment
from failpath_otel.server.store.tables import Row

SECONDS: Final = 0.06
"""How long one call looks, about."""

_FIRST_LOOK: Final = 64  # runs
_LONGEST_LOOK: Final = 400

Filter = Callable[[Connection, Sequence[Row]], Sequence[Row]]
"""Of some runs those that are wanted, in their order."""


class Hits(msgspec.Struct, frozen=True):
    """What a call found. ``next`` goes on; ``searched_to_us`` is the start up to which runs were gone through, if any were."""

    runs: list[Row]
    next: Cursor | None
    searched_to_us: int | None


class Bound:
    """Until when a call looks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """From now on; ``clock`` gives seconds."""
        self.clock: Final = clock
        self.ends: Final = clock() + SECONDS


def status_filter(status: str | None, moment: Moment) -> Filter:
    """Sifts runs with this status: one of a run, or ``stuck``, which is running with a step that runs for too long."""

    def fit(connection: Connection, runs: Sequence[Row]) -> Sequence[Row]:
        if status == "stuck":
            running = [run for run in runs if moment.status(run) == "running"]
            moment.learn(connection, running)
            return [run for run in running if moment.stuck_steps(run)]
        return runs if status is None else [run for run in runs if moment.status(run) == status]

    return fit


def go_through(
    connection: Connection, passing: Filter, wanted: RunFilter, limit: int, now_us: int, bound: Bound
) -> tuple[list[Row], Place | None]:
    """The next ``limit`` runs that pass the filter, and up to which run all were looked at; ``None``: to the last."""
    found: list[Row] = []
    size = _FIRST_LOOK
    while True:
        began = bound.clock()
        looked_at = find_runs(connection, wanted, size, now_us)
        for run in passing(connection, looked_at):
            found.append(run)
            if len(found) == limit:
                return found, place_of(run)
        if len(looked_at) < size:
            return found, None
        wanted = replace(wanted, after=place_of(looked_at[-1]))
        now = bound.clock()
        if now >= bound.ends:
            return found, place_of(looked_at[-1])
        # As many as the rest of the time is enough for, at the pace of the last ones.
        pace = max(now - began, 1e-6) / size
        size = max(_FIRST_LOOK, min(_LONGEST_LOOK, int((bound.ends - now) / pace)))


def stuck_runs(connection: Connection, wanted: RunFilter, limit: int, after: Cursor | None, moment: Moment) -> Hits:
    """At most ``limit`` runs that are stuck, of those that fit. Which these are follows from the clock, so no index tells."""
    place = None if after is None else after.place
    found, reached = go_through(
        connection, status_filter("stuck", moment), replace(wanted, after=place), limit, moment.now_us, Bound()
    )
    return Hits(found, None if reached is None else Cursor(reached), reached and reached[0])
