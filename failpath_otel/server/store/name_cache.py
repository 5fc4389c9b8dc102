"""The writer's memory of flows and steps: their ids, and which flows still have to be judged by their new declaration."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, select, update

from failpath_otel.server.store import tables
from failpath_otel.server.store.declarations import Declarations

_FLOWS = tables.Bulk(tables.flows)
_STEPS = tables.Bulk(tables.steps)


class JudgedFlow(msgspec.Struct):
    """A flow whose runs are being judged again, up to the run with id ``judged_to``."""

    id: int
    slug: str
    judged_to: int = 0


class NameCache:
    """Ids of flows and steps, given at first sight; written once an event that is stored needs them.

    A transaction that fails must drop this object: it may know names that the database does not.
    """

    def __init__(self, declared: Declarations) -> None:
        """Use `read`."""
        self._declared = declared
        self._flows: dict[str, int] = {}
        self._slugs: dict[int, str] = {}
        self._steps: dict[tuple[int, str], int] = {}
        self._keys: dict[int, str] = {}
        # Names that only duplicates bore get ids that are never stored, so counting the names would give ids twice.
        self._last_flow = 0
        self._last_step = 0
        self._stored_flows: set[int] = set()
        self._stored_steps: set[int] = set()
        self._new_flows: list[tables.RowValues] = []
        self._new_steps: list[tables.RowValues] = []
        self._to_judge: list[JudgedFlow] = []

    @classmethod
    def read(cls, connection: Connection, declared: Declarations) -> NameCache:
        """What the database knows."""
        names = cls(declared)
        for flow_id, slug, judged_by in tables.fetch(connection, select(tables.flows)):
            names._flows[slug] = flow_id
            names._last_flow = max(names._last_flow, flow_id)
            names._slugs[flow_id] = slug
            names._stored_flows.add(flow_id)
            if judged_by != declared.fingerprint(slug):
                names._to_judge.append(JudgedFlow(flow_id, slug))
        for step_id, flow_id, step_key in tables.fetch(connection, select(tables.steps)):
            names._steps[flow_id, step_key] = step_id
            names._last_step = max(names._last_step, step_id)
            names._keys[step_id] = step_key
            names._stored_steps.add(step_id)
        return names

    def flow_id(self, slug: str) -> int:
        """The id of a flow."""
        found = self._flows.get(slug)
        if found is None:
            self._last_flow += 1
            found = self._flows[slug] = self._last_flow
            self._slugs[found] = slug
        return found

    def is_new(self, flow_id: int) -> bool:
        """True for a flow that the database does not know."""
        return flow_id not in self._stored_flows

    def step_id(self, flow_id: int, step_key: str) -> int:
        """The id of a step."""
        found = self._steps.get((flow_id, step_key))
        if found is None:
            self._last_step += 1
            found = self._steps[flow_id, step_key] = self._last_step
            self._keys[found] = step_key
        return found

    def step_key(self, step_id: int) -> str:
        """The key of a step that the database knows."""
        return self._keys[step_id]

    def report(self, flow_id: int, step_key: str, step_id: int) -> None:
        """Says that an event of this step is stored, and so the step is to be stored with it."""
        if step_id not in self._stored_steps:
            self._stored_steps.add(step_id)
            self._new_steps.append((step_id, flow_id, step_key))
            if flow_id not in self._stored_flows:
                slug = self._slugs[flow_id]
                self._stored_flows.add(flow_id)
                self._new_flows.append((flow_id, slug, self._declared.fingerprint(slug)))

    def write(self, connection: Connection) -> None:
        """Stores what `report` found to be new."""
        if self._new_steps:
            _FLOWS.insert(connection, self._new_flows)
            _STEPS.insert(connection, self._new_steps)
            self._new_flows = []
            self._new_steps = []

    def next_to_judge(self) -> JudgedFlow | None:
        """A flow whose runs were judged by another declaration than today's."""
        return self._to_judge[0] if self._to_judge else None

    def judged(self, connection: Connection, flow: JudgedFlow, last_run_id: int | None) -> None:
        """Its runs are judged up to this one; ``None``: all are."""
        if last_run_id is not None:
            flow.judged_to = last_run_id
            return
        self._to_judge.remove(flow)
        judged_by = self._declared.fingerprint(flow.slug)
        connection.execute(update(tables.flows).where(tables.flows.c.id == flow.id).values(judged_by=judged_by))
