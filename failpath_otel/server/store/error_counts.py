"""Failures by kind: how often, since when, and which was the newest. Written with the events that they are of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, func, select

from failpath_otel.server.runs.fingerprint import fingerprint
from failpath_otel.server.runs.fold import SUMMARY_CHARS
from failpath_otel.server.store import tables

MAX_GROUPS: Final = 200
"""Of a flow. Beyond, the one that was not seen for the longest time becomes part of the others."""
OTHERS: Final = ""
"""The fingerprint under which a flow's remaining failures are counted."""

_NAME_CHARS: Final = 200
_FIND: Final = tables.Lookup(
    "SELECT fingerprint, step_id, name, message, n, first_us, last_us, last_run FROM errors "
    "WHERE flow_id = {} AND fingerprint IN {}"
)
_PUT: Final = tables.Bulk(tables.errors, on_conflict=tables.replaced(tables.errors))


class Failure(msgspec.Struct, frozen=True, gc=False):
    """An error event, as its group needs to know it."""

    step_id: int
    step_key: str
    run_key: str
    name: str
    message: str
    time_us: int


class _StoredGroup(msgspec.Struct, gc=False):
    step_id: int
    name: str
    message: str
    n: int
    first_us: int
    last_us: int
    last_run: str

    def add(self, other: _StoredGroup) -> None:
        """Takes in another part of the same group. Which comes first makes no difference, but where both are as new."""
        self.n += other.n
        self.first_us = min(self.first_us, other.first_us)
        if other.last_us >= self.last_us:
            self.last_us = other.last_us
            self.message = other.message
            self.last_run = other.last_run


class ErrorDelta:
    """The failures that one transaction adds."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._flows: dict[int, dict[str, _StoredGroup]] = {}

    def add(self, flow_id: int, failure: Failure) -> None:
        """An error event of this flow is new."""
        groups = self._flows.setdefault(flow_id, {})
        mark = _mark(failure)
        name, message, time_us = failure.name[:_NAME_CHARS], failure.message[:SUMMARY_CHARS], failure.time_us
        group = _StoredGroup(failure.step_id, name, message, 1, time_us, time_us, failure.run_key)
        known = groups.get(mark)
        if known is None:
            groups[mark] = group
        else:
            known.add(group)

    def write(self, connection: Connection) -> None:
        """Adds all to the groups that are there."""
        for flow_id, groups in self._flows.items():
            known = _read(connection, flow_id, groups)
            for mark, group in known.items():
                group.add(groups[mark])
            _put(connection, flow_id, {**groups, **known})
            if len(known) < len(groups):
                _make_room(connection, flow_id)


def subtract_failures(connection: Connection, gone: Mapping[int, Sequence[Failure]]) -> None:
    """Takes error events that are deleted (flow id → those of that flow) off their groups; a group of none goes."""
    for flow_id, failures in gone.items():
        marks = [_mark(failure) for failure in failures]
        groups = _read(connection, flow_id, {*marks, OTHERS})
        others = groups.get(OTHERS)
        for mark, failure in zip(marks, failures, strict=True):
            group = groups.get(mark)
            # What is older than its group is of the time before that group became part of the others and began anew.
            if group is None or failure.time_us < group.first_us or group.n == 0:
                group = others
            if group is not None:
                group.n -= 1
        _delete(connection, flow_id, [mark for mark, group in groups.items() if group.n <= 0])
        _put(connection, flow_id, {mark: group for mark, group in groups.items() if group.n > 0})


def _mark(failure: Failure) -> str:
    return fingerprint(failure.step_key, failure.name[:_NAME_CHARS], failure.message[:SUMMARY_CHARS])


def _read(connection: Connection, flow_id: int, marks: Iterable[str]) -> dict[str, _StoredGroup]:
    found: dict[str, _StoredGroup] = {}
    for some in tables.chunks(marks):
        for mark, *fields in _FIND.fetch(connection, (flow_id,), some):
            found[mark] = _StoredGroup(*fields)
    return found


def _put(connection: Connection, flow_id: int, groups: Mapping[str, _StoredGroup]) -> None:
    _PUT.insert(connection, [(flow_id, mark, *msgspec.structs.astuple(group)) for mark, group in groups.items()])


def _delete(connection: Connection, flow_id: int, marks: Iterable[str]) -> None:
    errors = tables.errors
    for some in tables.chunks(marks):
        connection.execute(delete(errors).where(errors.c.flow_id == flow_id, errors.c.fingerprint.in_(some)))


def _make_room(connection: Connection, flow_id: int) -> None:
    """Has the groups that were not seen for the longest time become part of the others, where there are too many."""
    errors = tables.errors
    of_flow = (errors.c.flow_id == flow_id) & (errors.c.fingerprint != OTHERS)
    excess = (connection.execute(select(func.count()).where(of_flow)).scalar() or 0) - MAX_GROUPS
    if excess <= 0:
        return
    oldest = select(errors.c.fingerprint).where(of_flow).order_by(errors.c.last_us, errors.c.fingerprint).limit(excess)
    merged = _read(connection, flow_id, connection.execute(oldest).scalars().all())
    others = _read(connection, flow_id, [OTHERS]).get(OTHERS)
    for group in merged.values():
        if others is None:
            others = group
        else:
            others.add(group)
    _delete(connection, flow_id, merged)
    if others is not None:
        _put(connection, flow_id, {OTHERS: others})
