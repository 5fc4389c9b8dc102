"""How many outcome events a second the store takes durably, without HTTP and without decoding.

Runs of five steps arrive together, in submissions of 100 runs from several senders at once, each sender waiting for its
receipt. Usage: ``python benchmarks/bench_ingest_store.py [runs] [database URL]``.
"""

from __future__ import annotations

import asyncio
import platform
import secrets
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import sqlalchemy

from failpath_otel.events.step import StepEvent, event_id
from failpath_otel.flows import parse_flows
from failpath_otel.server.queries.reader import Queries
from failpath_otel.server.store.database import Store
from failpath_otel.server.store.ingest import Ingest

STEPS = ("validate-cart", "charge-card", "reserve-stock", "create-order", "send-receipt-email")
RUNS_IN_SUBMISSION = 100
RUNS_IN_PART = 50_000
SENDERS = 4


def submission(now_ns: int) -> list[StepEvent]:
    """The outcomes of some new runs."""
    events: list[StepEvent] = []
    for _ in range(RUNS_IN_SUBMISSION):
        trace, run_id = secrets.token_hex(16), secrets.token_hex(16)
        for number, step in enumerate(STEPS):
            span = secrets.token_hex(8)
            start = now_ns + number * 10_000_000
            events.append(
                StepEvent(
                    event_id=event_id(trace, span, "success"),
                    flow_key="checkout",
                    run_id=run_id,
                    step_key=step,
                    status="success",
                    timestamp=start + 5_000_000,
                    started_at=start,
                    metadata={"route": "/checkout", "cart": 42},
                    trace_id=trace,
                    span_id=span,
                    service="shop",
                )
            )
    return events


async def fill(ingest: Ingest, runs: int) -> None:
    """Sends so many runs and prints the rate."""
    batches = [submission(time.time_ns()) for _ in range(runs // RUNS_IN_SUBMISSION)]
    events = sum(map(len, batches))

    async def sender() -> None:
        while batches:
            await ingest.submit(batches.pop())

    known = ingest.intake().accepted
    before_cpu, before = time.process_time(), time.perf_counter()
    await asyncio.gather(*(sender() for _ in range(SENDERS)))
    seconds, cpu = time.perf_counter() - before, time.process_time() - before_cpu
    stored = ingest.intake().accepted
    assert stored - known == events
    rate, cost = events / seconds, cpu / events * 1e6
    print(f"up to {stored:>9,} events: {rate:,.0f} events/s durable, {cost:.1f} us of CPU an event", flush=True)


async def measure(runs: int, db: str) -> None:
    """Fills the database and prints the rate."""
    flows = parse_flows({"flows": [{"slug": "checkout", "nodes": [{"sdkStepKey": step} for step in STEPS]}]})
    store = Store.open(db)
    ingest = Ingest(store, flows)
    ingest.start()
    left = runs
    while left > 0:
        # Part by part, because an index that grows past the cache shows in the last parts only.
        await fill(ingest, min(left, RUNS_IN_PART))
        left -= RUNS_IN_PART
    queries = Queries(store, flows)
    for name, read in (("runs", queries.runs), ("runs q", lambda: queries.runs(q="zzz")), ("flows", queries.flows)):
        before = time.perf_counter()
        read()
        print(f"  {name}: {(time.perf_counter() - before) * 1000:.1f} ms")
    await ingest.close()
    store.close()


def main() -> None:
    """Runs the benchmark."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, SQLAlchemy {sqlalchemy.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(runs, sys.argv[2] if len(sys.argv) > 2 else str(Path(folder) / "bench.db")))


if __name__ == "__main__":
    main()
