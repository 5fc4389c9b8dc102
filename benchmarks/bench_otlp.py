"""What a batch costs as OTLP log records beside the same batch as events, and 10,000 steps a second by OTLP.

Each arm exports full batches to a sink on loopback that answers at once. Processor time counts all threads of the process.
"""

from __future__ import annotations

import os

from bench_delivery import held
from harness import QUICK, Arm, Row, Sink, compare, report

from failpath_otel import HttpExporter, StepEvent
from failpath_otel.events.step import Status
from failpath_otel.exporters.otlp.exporter import OtlpExporter
from failpath_otel.exporters.protocol import EventExporter

BATCH = 2048
ROUNDS = 4 if QUICK else 30


def batch() -> list[StepEvent]:
    """Starts and outcomes in turn, as steps give them."""
    events = []
    for number in range(BATCH):
        trace_id, span_id = f"{number // 20 + 1:032x}", f"{number // 2 + 1:016x}"
        status: Status = "success" if number % 2 else "running"
        events.append(
            StepEvent(
                event_id=f"{trace_id}-{span_id}-{'end' if number % 2 else 'start'}",
                flow_key="checkout",
                run_id=f"req_{number // 20:08x}",
                step_key="charge-card",
                status=status,
                timestamp=1_772_366_400_000_000_000 + number * 1000,
                started_at=1_772_366_400_000_000_000 if number % 2 else None,
                metadata={"route": "/checkout", "amount": 19.5, "items": 3},
                trace_id=trace_id,
                span_id=span_id,
                service="shop",
            )
        )
    return events


def exporting(exporter: EventExporter, events: list[StepEvent]) -> Arm:
    def export(times: int) -> None:
        for _ in range(times):
            exporter.export(events, timeout_millis=60_000)

    return export


def costs(url: str) -> list[Row]:
    events = batch()
    base = {"OTEL_EXPORTER_OTLP_ENDPOINT": url}
    arms = {
        "events": exporting(HttpExporter(url), events),
        "OTLP": exporting(OtlpExporter(base), events),
        "OTLP, gzip": exporting(OtlpExporter({**base, "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}), events),
    }
    compared = compare(arms, calls=5, rounds=ROUNDS)
    rows = []
    for name in arms:
        micros = compared.micros(name, cpu=True)
        ratio = "" if name == "events" else f", {compared.ratio('events', name).show(' ×')} the rate of events"
        rows.append(Row(f"a batch of {BATCH} as {name}", f"{micros.median / BATCH:.1f} µs of processor time an event{ratio}"))
    return rows


def main() -> None:
    with Sink() as sink:
        rows = costs(sink.url)
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = sink.url
        os.environ["FAILPATH_EXPORTER"] = "otlp"
        rows.append(held(sink))
    report("otlp", rows)


if __name__ == "__main__":
    main()
