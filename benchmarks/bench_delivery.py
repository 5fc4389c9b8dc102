"""How fast steps are delivered to a sink on loopback, beside how fast the same process makes and exports bare spans.

Each turn makes its steps or spans and ends when all of them are flushed; the sink's counts show that none is missing. Then
10,000 steps a second from four threads, held with the default queue.
"""

from __future__ import annotations

import threading
import time

from bench_step import bare, stepped
from harness import FLOW, QUICK, RUN, STEP, Arm, Row, Sink, client, compare, fn, provider, report
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter

from failpath_otel import FailpathClient

BOUND = 0.75
CALLS = 5_000 if QUICK else 20_000
RATE = 10_000
SECONDS = 5 if QUICK else 60
HOLDS = 1 if QUICK else 3
THREADS = 4


def in_threads(arm: Arm) -> Arm:
    def together(calls: int) -> None:
        threads = [threading.Thread(target=arm, args=(calls // THREADS,)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return together


def delivered(arm: Arm, tracing: TracerProvider, failpath: FailpathClient | None = None) -> Arm:
    def until_flushed(calls: int) -> None:
        arm(calls)
        if failpath is not None:
            assert failpath.flush(60_000)
        tracing.force_flush()

    return until_flushed


def rates(label: str, sinks: tuple[Sink, Sink] | None, events: Sink, *, threads: bool, bound: float | None) -> Row:
    def exporter(index: int) -> SpanExporter | None:
        return None if sinks is None else OTLPSpanExporter(f"{sinks[index].url}/v1/traces")

    theirs, ours = provider(exporter(0)), provider(exporter(1))
    before = events.counts().get("events", 0)
    with client(tracer_provider=ours, endpoint=events.url) as failpath:
        spread = in_threads if threads else lambda arm: arm
        arms = {
            "spans": delivered(spread(bare(theirs.get_tracer("bench"))), theirs),
            "steps": delivered(spread(stepped(failpath)), ours, failpath),
        }
        compared = compare(arms, calls=CALLS, rounds=20 if not QUICK else 4)
        stats = failpath.stats()
    came = events.counts()["events"] - before
    assert not stats.dropped, stats
    assert came == stats.sent == 2 * CALLS * (compared.rounds + 1), (came, stats)
    ratio = compared.ratio("spans", "steps")
    steps, spans = (1e6 / compared.micros(name).median for name in ("steps", "spans"))
    shown = f"{ratio.show(' ×')}; {steps:,.0f} steps/s ({2 * steps:,.0f} events/s), {spans:,.0f} spans/s, nothing lost"
    return Row(
        f"delivery rate, {label}",
        shown,
        "" if bound is None else f"≥ {bound} ×",
        None if bound is None else ratio.median >= bound,
    )


def held(events: Sink) -> Row:
    """10,000 steps a second, at the pace of the clock."""
    tracing = provider()
    before = events.counts().get("events", 0)
    late = [0.0] * THREADS
    with client(tracer_provider=tracing, endpoint=events.url, max_queue_size=None) as failpath:
        run = failpath.run(FLOW, RUN)
        start = time.perf_counter()

        def paced(number: int) -> None:
            per_tick, tick = RATE // THREADS // 100, 0.01
            for index in range(SECONDS * 100):
                wait = start + index * tick - time.perf_counter()
                if wait > 0:
                    time.sleep(wait)
                late[number] = max(late[number], -wait)
                for _ in range(per_tick):
                    run.step(STEP, fn)

        cpu = time.process_time()
        threads = [threading.Thread(target=paced, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - start
        flushed = failpath.flush(60_000)
        share = (time.process_time() - cpu) / (time.perf_counter() - start)
        tracing.force_flush()
    came = events.counts()["events"] - before
    steps = RATE * SECONDS
    rate = steps / took
    kept = bool(flushed) and not flushed.dropped and came == 2 * steps
    lost = "nothing lost" if kept else f"{2 * steps - came} events lost: {dict(flushed.dropped)}"
    shown = f"{rate:,.0f} steps/s for {took:.1f} s, {lost}, {share:.0%} of one core, {max(late):.2f} s behind at worst"
    return Row(
        f"{RATE:,} steps/s for {SECONDS} s from {THREADS} threads, default queue",
        shown,
        f"{RATE:,}/s, nothing lost",
        kept and rate >= RATE * 0.99,
    )


def main() -> None:
    with Sink() as events, Sink() as theirs, Sink() as ours:
        both = (theirs, ours)
        rows = [
            rates("spans by OTLP to a sink in both arms", both, events, threads=False, bound=BOUND),
            rates("the same, 4 threads", both, events, threads=True, bound=BOUND),
            rates("spans thrown away in both arms", None, events, threads=False, bound=None),
            *(held(events) for _ in range(HOLDS)),  # each is shown: one that went well proves little
        ]
    report("delivery", rows)


if __name__ == "__main__":
    main()
