"""What a span that is no step costs with our span processor, without and with span rules, beside the same span without.

One thread, the same BatchSpanProcessor in both arms, exporters that throw away between the turns; short turns and many rounds,
since the difference is smaller than what a machine varies by. Processor time, which other processes disturb less.
"""

from __future__ import annotations

import itertools

from bench_step import NoEvents
from harness import NO_LIMIT, Arm, Row, client, compare, provider, report
from opentelemetry.trace import Tracer

from failpath_otel import Attribute, Glob, Regex, SpanRule

BOUND = 1.03
ATTRIBUTES = {"http.request.method": "GET", "url.path": "/checkout", "http.response.status_code": 200}


RULES = [
    *(
        SpanRule(name=f"POST /{n}", kind="server", flow="checkout", step=f"step-{n}", run=[Attribute("order.id"), "trace"])
        for n in range(10)
    ),
    SpanRule(name=Glob("apply_async/*"), flow="checkout", step="queue", run=["trace"]),
    SpanRule(name=Regex("^(INSERT|UPDATE) orders"), step="store", run=["parent"]),
    SpanRule(
        scope="opentelemetry.instrumentation.httpx", attributes={"url.full": Glob("https://pay*")}, step="pay", run=["parent"]
    ),
]
"""None of them matches."""


def spans(tracer: Tracer) -> Arm:
    def arm(calls: int) -> None:
        for _ in range(calls):
            with tracer.start_as_current_span("GET /checkout", attributes=ATTRIBUTES):
                pass

    return arm


def main() -> None:
    without, attached, ruled, twin = (provider(batch=NO_LIMIT) for _ in range(4))  # exports only when it is told to

    turns = itertools.count()

    def settle() -> None:
        if next(turns) % 60 == 0:
            for one in (without, attached, ruled, twin):
                one.force_flush()

    with (
        client(tracer_provider=attached, exporter=NoEvents(), rules=False),
        client(tracer_provider=ruled, exporter=NoEvents(), rules=RULES),
    ):
        providers = {"without": without, "attached": attached, "ruled": ruled, "twin": twin}
        arms = {name: spans(one.get_tracer("bench")) for name, one in providers.items()}
        compared = compare(arms, calls=100, rounds=1500, settle=settle, collect=False)
    ratio, matched, noise = (compared.ratio(name, "without", cpu=True) for name in ("attached", "ruled", "twin"))
    over, over_ruled = (compared.over(name, "without", cpu=True) for name in ("attached", "ruled"))
    rows = [
        Row(
            "a span that is no step, our processor attached",
            f"{ratio.show(' ×', 3)}, {over.show(' µs')} more",
            f"≤ {BOUND} ×",
            ratio.median <= BOUND,
        ),
        Row(
            f"a span that matches none of {len(RULES)} span rules",
            f"{matched.show(' ×', 3)}, {over_ruled.show(' µs')} more",
            f"≤ {BOUND} ×",
            matched.median <= BOUND,
        ),
        Row("the same without our processor, twice (what the measuring itself varies by)", noise.show(" ×", 3)),
    ]
    report("foreign", rows)


if __name__ == "__main__":
    main()
