"""The search for text among runs: in run ids, in metadata, in errors.

Only run ids have an index. Everything else is looked for by going through the runs, newest first, for a bounded time; the
answer says how far that came, and its cursor goes on from there.
"""

from __future__ import annotations

import string
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, func, or_, select

from failpath_otel.server.queries.bounded_scan import Bound, Filter, Hits, go_through, status_filter
from failpath_otel.server.queries.cursor import BadQuery, Cursor
from failpath_otel.server.queries.pages import Place, RunFilter, place_of
from failpath_otel.server.queries.run_list import Moment
from failpath_otel.server.store import tables
from failpath_otel.server.store.tables import Row

FEW: Final = 500
"""Up to so many runs whose ids begin with the text are shown before all others; of more, the newest are found soon anyway."""
MAX_CHARS: Final = 512

PHASES: Final = "ibe"
"""Of a cursor: within the runs found by their ids (i); among all others, without those whose id begins with the text (b) or
equals it (e)."""

_NEWEST: Final[Place] = (10**18 - 1, 10**18 - 1)
_AFTER_ALL: Final = "\U0010ffff"
_FOLD: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

_decode_any: Final = msgspec.json.Decoder().decode


def search_text(
    connection: Connection,
    text: str,
    wanted: RunFilter,
    limit: int,
    cursor: Cursor | None,
    moment: Moment,
    clock: Callable[[], float] = time.monotonic,
) -> Hits:
    """At most ``limit`` runs that fit and contain the text; letters A to Z in any case. ``clock`` bounds the time.

    Raises:
        BadQuery: The text is too long, or holds what no database can look for.
    """
    if len(text) > MAX_CHARS or "\0" in text:
        raise BadQuery(f"q must be at most {MAX_CHARS} characters without NUL, got {text[:100]!r} of {len(text)}")
    bound = Bound(clock)
    status_fits = status_filter(wanted.status, moment)
    found: list[Row] = []
    if cursor is None or cursor.phase == "i":
        named, excluded = _named(connection, text, wanted.flow_id)
        fitting = [run for run in status_fits(connection, named) if _fits(run, wanted, cursor)]
        if len(fitting) > limit:
            return Hits(fitting[:limit], Cursor(place_of(fitting[limit - 1]), "i"), None)
        found = fitting
        cursor = Cursor(_NEWEST, excluded)
        if len(found) == limit:
            return Hits(found, cursor, None)
    contain = _others(_Text(text), cursor.phase)
    others, reached = go_through(
        connection,
        lambda connection, runs: contain(connection, status_fits(connection, runs)),
        replace(wanted, after=cursor.place),
        limit - len(found),
        moment.now_us,
        bound,
    )
    return Hits([*found, *others], None if reached is None else Cursor(reached, cursor.phase), reached and reached[0])


def _named(connection: Connection, text: str, flow_id: int | None) -> tuple[list[Row], str]:
    """The runs whose id begins with the text, or where these are many, equals it; newest first. And which of the two."""
    runs = tables.runs
    # Bounded by text alone, so that the index of run ids finds them; the flow stands first in it.
    of_flow = runs.c.flow_id.in_(select(tables.flows.c.id)) if flow_id is None else runs.c.flow_id == flow_id
    phase, named = "b", of_flow & (runs.c.run_key >= text) & (runs.c.run_key < text + _AFTER_ALL)
    some = select(runs.c.id).where(named).limit(FEW + 1).subquery()
    if (connection.execute(select(func.count()).select_from(some)).scalar() or 0) > FEW:
        phase, named = "e", of_flow & (runs.c.run_key == text)
    found = list(tables.fetch(connection, select(runs).where(named)))
    found.sort(key=place_of, reverse=True)
    return found, phase


def _fits(run: Row, wanted: RunFilter, cursor: Cursor | None) -> bool:
    return (
        (cursor is None or place_of(run) < cursor.place)
        and (wanted.since_us is None or run.started_us >= wanted.since_us)
        and (wanted.until_us is None or run.started_us < wanted.until_us)
    )


def _others(text: _Text, phase: str) -> Filter:
    """Sifts runs that contain the text, without those that were shown before all others for their id."""

    def contain(connection: Connection, runs: Sequence[Row]) -> list[Row]:
        found = text.among(connection, runs)
        if phase == "b":
            return [run for run in found if not run.run_key.startswith(text.plain)]
        return [run for run in found if run.run_key != text.plain]

    return contain


class _Text:
    """What is looked for, in the forms that it takes in ids, in errors and in JSON."""

    def __init__(self, plain: str) -> None:
        self.plain: Final = plain
        self._folded: Final = plain.translate(_FOLD)
        self._within_json: Final = msgspec.json.encode(plain).decode()[1:-1]

    def among(self, connection: Connection, runs: Sequence[Row]) -> list[Row]:
        """Those of the runs that contain the text, in their order."""
        matching_ids = {
            run.id for run in runs if self._in(run.run_key) or self._in(run.error_name) or self._in(run.error_message)
        }
        rest = [run.id for run in runs if run.id not in matching_ids]
        if rest:
            matching_ids |= self._ids_by_events(connection, rest)
        return [run for run in runs if run.id in matching_ids]

    def _ids_by_events(self, connection: Connection, run_ids: Sequence[int]) -> set[int]:
        events = tables.events
        columns = (events.c.run_id, events.c.metadata, events.c.error_name, events.c.error_message)
        # The database sifts, so that few payloads come here; which part of the JSON it met is looked at here.
        passing = or_(
            self._contains(connection, events.c.metadata, self._within_json),
            self._contains(connection, events.c.error_name, self.plain),
            self._contains(connection, events.c.error_message, self.plain),
        )
        found: set[int] = set()
        for run_id, metadata, name, message in connection.execute(
            select(*columns).where(events.c.run_id.in_(run_ids), passing)
        ):
            if run_id not in found and (self._in(name) or self._in(message) or self._in_values(metadata)):
                found.add(run_id)
        return found

    def _contains(self, connection: Connection, column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
        # SQLite's LIKE takes A to Z in any case by itself.
        contains = column.contains if connection.dialect.name == "sqlite" else column.icontains
        return contains(text, autoescape=True)

    def _in(self, text: str | None) -> bool:
        return text is not None and self._folded in text.translate(_FOLD)

    def _in_values(self, metadata: str | None) -> bool:
        return metadata is not None and any(self._in(leaf) for leaf in _leaves(_decode_any(metadata)))


def _leaves(value: Any) -> Iterable[str]:
    """The texts and numbers within decoded JSON, but no names."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in cast("Mapping[str, Any]", value).values():
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in cast("Sequence[Any]", value):
            yield from _leaves(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield msgspec.json.encode(value).decode()
