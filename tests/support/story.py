"""What the store's tests are told with: events in a line, a clock that is set, a store with its one way in."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from failpath_otel.events.step import Status, StepError, StepEvent
from failpath_otel.flows import Flows, parse_flows
from failpath_otel.server.queries.reader import Queries
from failpath_otel.server.store.changes import Changes
from failpath_otel.server.store.database import Store
from failpath_otel.server.store.ingest import Ingest

T = TypeVar("T")
SECOND = 1_000_000_000
EPOCH = 1_790_000_000 * SECOND
"""When stories begin, in nanoseconds."""

_numbers = itertools.count(1)


def event(
    step: str = "a",
    status: Status = "success",
    at: float = 0.0,
    *,
    run: str = "r1",
    flow: str = "checkout",
    span: str | None = "",
    started: float | None = None,
    event_id: str | None = None,
    error: StepError | None = None,
    **fields: Any,
) -> StepEvent:
    """An event ``at`` so many seconds into the story. Without ``span`` it gets one of its own; ``None``: it has none."""
    number = next(_numbers)
    if status == "error" and error is None:
        error = StepError("Declined", "no funds")
    return StepEvent(
        event_id=event_id or f"event-{number}",
        flow_key=flow,
        run_id=run,
        step_key=step,
        status=status,
        timestamp=EPOCH + int(at * SECOND),
        started_at=None if started is None else EPOCH + int(started * SECOND),
        span_id=f"span-{number}" if span == "" else span,
        error=error,
        **fields,
    )


def flow_of(*steps: str, slug: str = "checkout", edges: Sequence[tuple[str, str]] = ()) -> Flows:
    """Flows with one flow."""
    nodes = [{"sdkStepKey": step, "label": step.title()} for step in steps]
    arrows = [{"source": source, "target": target} for source, target in edges]
    return parse_flows({"flows": [{"slug": slug, "nodes": nodes, "edges": arrows}]})


@dataclass
class Clock:
    """A clock that stands still until it is told."""

    now_ns: int = EPOCH

    def __call__(self) -> int:
        return self.now_ns

    def at(self, seconds: float) -> None:
        """Sets it to so many seconds into the story."""
        self.now_ns = EPOCH + int(seconds * SECOND)


@dataclass
class House:
    """A store with its way in and its reads."""

    store: Store
    ingest: Ingest
    queries: Queries
    clock: Clock
    changes: Changes = field(init=False)

    def __post_init__(self) -> None:
        self.changes = self.ingest.changes

    async def tell(self, *events: StepEvent) -> tuple[int, int]:
        """Submits events; gives how many were accepted and how many known."""
        receipt = await self.ingest.submit(events)
        return receipt.accepted, receipt.duplicates


@asynccontextmanager
async def house(db: str | Path, flows: Flows | None = None, clock: Clock | None = None, **options: Any) -> AsyncIterator[House]:
    """An open store, closed at the end."""
    flows = flows if flows is not None else flow_of("a", "b", "c")
    clock = clock or Clock()
    store = Store.open(db)
    ingest = Ingest(store, flows, clock, **options)
    ingest.start()
    try:
        yield House(store, ingest, Queries(store, flows, clock), clock)
    finally:
        await ingest.close()
        store.close()


def run(story: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end, at most a minute."""
    return asyncio.run(asyncio.wait_for(story, 60))


async def eventually(condition: Callable[[], object], seconds: float = 40) -> None:
    """Lets the loop go on until ``condition`` is true; fails after ``seconds``, which are for a busy machine."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.01)


def all_pages(home: House, limit: int = 3, **filters: Any) -> tuple[list[str], int]:
    """The runs of all pages in their order, and how many pages there were."""
    seen: list[str] = []
    cursor: str | None = None
    pages = 0
    while True:
        page = home.queries.runs(limit=limit, cursor=cursor, **filters)
        pages += 1
        seen += [row.run_id for row in page.runs]
        assert len(page.runs) <= limit
        cursor = page.next_cursor
        if cursor is None:
            return seen, pages
