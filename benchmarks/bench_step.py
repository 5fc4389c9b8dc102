"""What one ``run.step(key, fn)`` costs beside a bare OpenTelemetry span that ends up with the same attributes.

Both arms have a provider of their own with the same BatchSpanProcessor. Three set-ups: both exporters throw away what they
get; only events travel, to a sink process on loopback; events and spans travel, each to such a process. Also: the latency
of single calls, a client that is not enabled, and spans that are sampled out.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness import (
    FLOW,
    RUN,
    STEP,
    STEP_ATTRIBUTES,
    Arm,
    Comparison,
    Row,
    Sink,
    client,
    compare,
    fn,
    latencies,
    provider,
    report,
)
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Tracer

from failpath_otel import FailpathClient, StepEvent

BOUND = 1.2
ARMS = ("bare span", "run.step")


class NoEvents:
    """An exporter that throws events away."""

    def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
        pass

    def close(self) -> None:
        pass


def bare(tracer: Tracer) -> Arm:
    name, attributes = f"{FLOW}/{STEP}", STEP_ATTRIBUTES

    def arm(calls: int) -> None:
        for _ in range(calls):
            with tracer.start_as_current_span(name, attributes=attributes) as span:
                fn()
                span.set_attribute("failpath.step.status", "success")

    return arm


def stepped(failpath: FailpathClient) -> Arm:
    run = failpath.run(FLOW, RUN)

    def arm(calls: int) -> None:
        step = run.step
        for _ in range(calls):
            step(STEP, fn)

    return arm


def beside_a_bare_span(
    theirs: TracerProvider, ours: TracerProvider, failpath: FailpathClient, *, calls: int, rounds: int
) -> Comparison:
    def settle() -> None:
        assert failpath.flush(60_000)
        ours.force_flush()
        theirs.force_flush()

    compared = compare(
        {ARMS[0]: bare(theirs.get_tracer("bench")), ARMS[1]: stepped(failpath)}, calls=calls, rounds=rounds, settle=settle
    )
    settle()
    assert not failpath.stats().dropped
    return compared


def rows(label: str, compared: Comparison) -> list[Row]:
    ratio, cpu = compared.ratio(ARMS[1], ARMS[0]), compared.ratio(ARMS[1], ARMS[0], cpu=True)
    bare, step = (compared.micros(arm) for arm in ARMS)
    shown = f"{ratio.show(' ×')}; {bare.show(' µs', 1)} bare, {step.show(' µs', 1)} step; "
    shown += f"processor time of all threads {cpu.show(' ×')}"
    return [Row(f"`run.step(key, fn)` beside a bare span, {label}", shown, f"≤ {BOUND} ×", ratio.median <= BOUND)]


def thrown_away() -> list[Row]:
    theirs, ours = provider(), provider()
    with client(tracer_provider=ours, exporter=NoEvents()) as failpath:
        return rows("both exporters throw away", beside_a_bare_span(theirs, ours, failpath, calls=1000, rounds=200))


def events_travel() -> list[Row]:
    theirs, ours = provider(), provider()
    with Sink() as sink, client(tracer_provider=ours, endpoint=sink.url) as failpath:
        found = rows("events to a sink, spans thrown away", beside_a_bare_span(theirs, ours, failpath, calls=1000, rounds=200))
        run, tracer = failpath.run(FLOW, RUN), theirs.get_tracer("bench")
        for name, call in (("bare span", lambda: bare(tracer)(1)), ("run.step", lambda: run.step(STEP, fn))):
            median, late = latencies(call, 20_000)
            found.append(Row(f"one call, {name}, events to a sink", f"p50 {median:.1f} µs, p99 {late:.1f} µs"))
        return found


def all_travels() -> list[Row]:
    with Sink() as spans, Sink() as events:
        theirs, ours = (provider(OTLPSpanExporter(f"{spans.url}/v1/traces")) for _ in range(2))
        with client(tracer_provider=ours, endpoint=events.url) as failpath:
            return rows("events and spans (OTLP) to sinks", beside_a_bare_span(theirs, ours, failpath, calls=5000, rounds=60))


def not_enabled() -> list[Row]:
    run = client(enabled=False).run(FLOW, RUN)

    def called(calls: int) -> None:
        for _ in range(calls):
            fn()

    def step(calls: int) -> None:
        for _ in range(calls):
            run.step(STEP, fn)

    over = compare({"call": called, "step": step}, calls=10_000, rounds=100).over("step", "call")
    return [Row("`enabled=False`, over calling the function", over.show(" µs", 3), "≤ 1 µs", over.median <= 1)]


def sampled_out() -> list[Row]:
    theirs, ours = (TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False) for _ in range(2))
    with client(tracer_provider=ours, exporter=NoEvents()) as failpath:
        compared = beside_a_bare_span(theirs, ours, failpath, calls=1000, rounds=100)
        step, ratio = compared.micros(ARMS[1]), compared.ratio(ARMS[1], ARMS[0])
        assert failpath.stats().sent > 0
        return [
            Row(
                "`run.step(key, fn)`, span sampled out, events recorded",
                f"{step.show(' µs', 1)}, {ratio.show(' ×')} the bare span",
            )
        ]


def main() -> None:
    report("step", [*thrown_away(), *events_travel(), *all_travels(), *not_enabled(), *sampled_out()])


if __name__ == "__main__":
    main()
