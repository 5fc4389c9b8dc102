"""What a span that is no step costs with our span processor attached, beside the same span without.

One thread, the same BatchSpanProcessor in both arms, exporters that throw away between the turns; short turns and many rounds,
since the difference is smaller than what a machine varies by. Processor time, which other processes disturb less.
"""

from __future__ import annotations

import itertools

from bench_step import NoEvents
from harness import NO_LIMIT, Arm, Row, client, compare, provider, report
from opentelemetry.trace import Tracer

BOUND = 1.03
ATTRIBUTES = {"http.request.method": "GET", "url.path": "/checkout", "http.response.status_code": 200}


def spans(tracer: Tracer) -> Arm:
    def arm(calls: int) -> None:
        for _ in range(calls):
            with tracer.start_as_current_span("GET /checkout", attributes=ATTRIBUTES):
                pass

    return arm


def main() -> None:
    without, attached, twin = (provider(batch=NO_LIMIT) for _ in range(3))  # exports only when it is told to

    turns = itertools.count()

    def settle() -> None:
        if next(turns) % 60 == 0:
            for one in (without, attached, twin):
                one.force_flush()

    with client(tracer_provider=attached, exporter=NoEvents()):
        arms = {
            name: spans(one.get_tracer("bench")) for name, one in (("without", without), ("attached", attached), ("twin", twin))
        }
        compared = compare(arms, calls=100, rounds=1500, settle=settle, collect=False)
    ratio, noise = (compared.ratio(name, "without", cpu=True) for name in ("attached", "twin"))
    over = compared.over("attached", "without", cpu=True)
    rows = [
        Row(
            "a span that is no step, our processor attached",
            f"{ratio.show(' ×', 3)}, {over.show(' µs')} more",
            f"≤ {BOUND} ×",
            ratio.median <= BOUND,
        ),
        Row("the same without our processor, twice (what the measuring itself varies by)", noise.show(" ×", 3)),
    ]
    report("foreign", rows)


if __name__ == "__main__":
    main()
