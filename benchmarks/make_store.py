"""Fills a database with runs as a shop would have made them within the last days, by the server's own writer.

Four flows, two events a step; some steps are tried again, some runs fail for one of many reasons, are left off, or skip a step,
and of the newest ones some are under way or stuck. What is made follows from the seed and the number of runs.

Usage: ``python benchmarks/make_store.py DATABASE [runs, default 100,000] [days, default 30]``; flows.json is written beside it.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from failpath_otel.events.step import Status, StepError, StepEvent
from failpath_otel.flows import Flows, parse_flows
from failpath_otel.server.store.database import Store
from failpath_otel.server.store.declarations import Declarations
from failpath_otel.server.store.writer import Writer

MILLI = 1_000_000
RUNS_AT_ONCE = 200
LATE_RUNS = 300
"""Of the last ones some are still under way."""

# Steps with how long they take (ms, the middle one) and edges; the share of all runs that are of this flow.
FLOWS: dict[str, tuple[float, dict[str, float], list[tuple[str, str]]]] = {
    "checkout": (
        0.7,
        {"validate-cart": 12, "reserve-stock": 40, "charge-card": 450, "create-order": 30, "send-receipt-email": 120},
        [
            ("validate-cart", "reserve-stock"),
            ("validate-cart", "charge-card"),
            ("reserve-stock", "create-order"),
            ("charge-card", "create-order"),
            ("create-order", "send-receipt-email"),
        ],
    ),
    "payment-webhook": (0.15, {"verify-signature": 3, "find-order": 15, "apply-payment": 60}, []),
    "sign-up": (0.1, {"check-address": 200, "create-account": 35, "send-welcome": 150, "add-to-crm": 800}, []),
    "nightly-import": (
        0.05,
        {f"{verb}-{what}": 900 for what in ("stock", "prices", "images") for verb in ("fetch", "check", "store")},
        [],
    ),
}
ERRORS = (
    ("CardDeclined", "card of customer cus_{id} was declined: insufficient funds"),
    ("CardDeclined", "card of customer cus_{id} was declined: expired"),
    ("ConnectTimeout", "HTTPSConnectionPool(host='payments.internal', port=443): timed out after {n} ms"),
    ("OutOfStock", "article {n} is not in stock"),
    ("IntegrityError", 'duplicate key value violates unique constraint "orders_pkey" DETAIL: Key (id)=({n}) already exists.'),
    ("KeyError", "'customer_{n}'"),
    ("ValueError", "invalid literal for int() with base 10: '{id}'"),
    ("HTTPError", "503 Server Error: Service Unavailable for url: https://crm.example/api/contacts/{n}"),
)


def flows_json() -> dict[str, Any]:
    """The declaration of the flows."""
    return {
        "flows": [
            {
                "slug": slug,
                "name": slug.replace("-", " ").capitalize(),
                "nodes": [{"sdkStepKey": key, "label": key.replace("-", " ").capitalize()} for key in steps],
                "edges": [{"source": source, "target": target} for source, target in edges],
            }
            for slug, (_, steps, edges) in FLOWS.items()
        ]
    }


def flows() -> Flows:
    """The same, as the server reads it."""
    return parse_flows(flows_json())


@dataclass
class Maker:
    """Makes runs from a seed."""

    seed: int = 1
    chance: random.Random = field(init=False)
    _slugs: Sequence[str] = tuple(FLOWS)
    _shares: Sequence[float] = tuple(share for share, _, _ in FLOWS.values())

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def run(self, number: int, start_ns: int, *, late: bool) -> list[StepEvent]:
        """The events of one run; of ``late`` ones some are under way."""
        chance = self.chance
        (slug,) = chance.choices(self._slugs, self._shares)
        trace = f"{chance.getrandbits(128):032x}"
        run_id = f"{slug[:3]}_{chance.getrandbits(64):016x}"
        metadata = {
            "order": 10_000_000 + number,
            "customer": f"cus_{number % 50_021:05d}",
            "region": chance.choice(("eu", "us")),
        }
        fate = chance.random()
        under_way = late and fate < 0.3
        steps = list(FLOWS[slug][1].items())
        fails_at = chance.randrange(len(steps)) if 0.3 <= fate < 0.37 else -1
        stops_at = chance.randrange(1, len(steps)) if under_way or 0.37 <= fate < 0.4 else len(steps)
        events: list[StepEvent] = []
        at = start_ns
        for place, (key, middle) in enumerate(steps[:stops_at]):
            one = _Step(slug, run_id, key, trace, metadata)
            if 0.4 <= fate < 0.45 and place == len(steps) - 1:
                events.append(one.event(self._span(), "skipped", at, at))
                break
            if chance.random() < 0.02:
                at = self._attempt(one, events, at, middle, self._error())
                at += 50 * MILLI
            last = under_way and place == stops_at - 1
            at = self._attempt(one, events, at, middle, self._error() if place == fails_at else None, ends=not last)
            if place == fails_at:
                break
        return events

    def _attempt(
        self, one: _Step, events: list[StepEvent], at: int, middle: float, error: StepError | None, *, ends: bool = True
    ) -> int:
        span = self._span()
        events.append(one.event(span, "running", at, None))
        end = at + int(self.chance.lognormvariate(0, 0.5) * middle * MILLI)
        if ends:
            events.append(one.event(span, "success" if error is None else "error", end, at, error))
        return end

    def _span(self) -> str:
        return f"{self.chance.getrandbits(64):016x}"

    def _error(self) -> StepError:
        name, message = self.chance.choice(ERRORS)
        number = self.chance.getrandbits(40)
        return StepError(
            name, message.format(n=number % 100_000, id=f"{number:010x}"), "Traceback (most recent call last):\n" * 8
        )


@dataclass(frozen=True)
class _Step:
    slug: str
    run_id: str
    key: str
    trace: str
    metadata: dict[str, Any]

    def event(self, span: str, status: Status, at: int, started: int | None, error: StepError | None = None) -> StepEvent:
        return StepEvent(
            event_id=f"{self.trace}-{span}-{'start' if status == 'running' else 'end'}",
            flow_key=self.slug,
            run_id=self.run_id,
            step_key=self.key,
            status=status,
            timestamp=at,
            started_at=started,
            metadata=self.metadata,
            error=error,
            trace_id=self.trace,
            span_id=span,
            service="shop",
        )


def batches(runs: int, days: float, now_ns: int) -> Iterator[list[StepEvent]]:
    """All events in batches, in the order in which their runs begin."""
    maker = Maker()
    span = int(days * 86_400_000) * MILLI
    batch: list[StepEvent] = []
    for number in range(runs):
        batch += maker.run(number, now_ns - span + span * number // runs, late=number >= runs - LATE_RUNS)
        if (number + 1) % RUNS_AT_ONCE == 0 or number == runs - 1:
            yield batch
            batch = []


def make(db: str, runs: int, days: float = 30, now_ns: int | None = None) -> int:
    """Fills a database; how many events that took."""
    now_ns = now_ns or time.time_ns()
    arrival_us = 0
    store = Store.open(db)
    writer = Writer(store, Declarations(flows()), lambda: arrival_us)
    stored, told, began = 0, time.monotonic(), time.monotonic()
    for batch in batches(runs, days, now_ns):
        arrival_us = min(max(event.timestamp for event in batch), now_ns) // 1000
        # In parts, as the server's own ingest would commit them.
        writer.write([batch])
        stored += len(batch)
        if time.monotonic() - told > 5:
            told = time.monotonic()
            print(f"{stored:>12,} events, {stored / (told - began):,.0f}/s", flush=True)
    store.close()
    return stored


def main() -> None:
    """Makes the database that the command line names."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    db, runs = sys.argv[1], int(sys.argv[2].replace(",", "")) if len(sys.argv) > 2 else 100_000
    if "://" not in db:
        Path(db).parent.mkdir(parents=True, exist_ok=True)
        Path(db).with_name("flows.json").write_text(json.dumps(flows_json(), indent=2))
    began = time.monotonic()
    stored = make(db, runs, float(sys.argv[3]) if len(sys.argv) > 3 else 30)
    print(f"{runs:,} runs, {stored:,} events in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
