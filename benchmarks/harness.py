"""What the benchmarks share: arms measured in turn, ratios with their spread, versions, a sink process, results on disk.

Two things are never measured one after the other and then divided: a machine is seldom as fast a minute later. Arms take
short turns (A B, B A, …), each round gives one ratio, and the median of these ratios is reported with its quartiles.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from failpath_otel import FailpathClient, __version__

Arm = Callable[[int], None]
"""Makes so many calls of what is measured."""

QUICK = "--quick" in sys.argv or bool(os.environ.get("BENCH_QUICK"))
RESULTS = Path(__file__).resolve().parent.parent / "build" / "bench"
FLOW, RUN, STEP = "checkout", "req_5f2c81d0", "charge-card"
STEP_ATTRIBUTES = {"failpath.flow.slug": FLOW, "failpath.run.id": RUN, "failpath.step.key": STEP}
NO_LIMIT = 1_000_000


def fn() -> None:
    """The function within every step."""


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, median, high)

    def show(self, unit: str = "", digits: int = 2) -> str:
        return f"{self.median:.{digits}f}{unit} ({self.low:.{digits}f} … {self.high:.{digits}f})"


@dataclass(frozen=True)
class Comparison:
    """Seconds for one call of each arm, round by round: by the clock, and of processor time in all threads."""

    wall: Mapping[str, Sequence[float]]
    cpu: Mapping[str, Sequence[float]]

    @property
    def rounds(self) -> int:
        return min(map(len, self.wall.values()))

    def micros(self, arm: str, *, cpu: bool = False) -> Spread:
        return Spread.of([seconds * 1e6 for seconds in self._of(arm, cpu=cpu)])

    def ratio(self, arm: str, base: str, *, cpu: bool = False) -> Spread:
        return Spread.of([mine / other for mine, other in zip(self._of(arm, cpu=cpu), self._of(base, cpu=cpu), strict=True)])

    def over(self, arm: str, base: str, *, cpu: bool = False) -> Spread:
        """Microseconds that ``arm`` takes more than ``base``."""
        pairs = zip(self._of(arm, cpu=cpu), self._of(base, cpu=cpu), strict=True)
        return Spread.of([(mine - other) * 1e6 for mine, other in pairs])

    def _of(self, arm: str, *, cpu: bool) -> Sequence[float]:
        return (self.cpu if cpu else self.wall)[arm]


def compare(
    arms: Mapping[str, Arm], *, calls: int, rounds: int, settle: Callable[[], object] | None = None, collect: bool = True
) -> Comparison:
    """Lets the arms take turns, the order turned round each time; ``settle`` runs before each turn and is not counted."""
    if QUICK:
        rounds = max(4, rounds // 10)
    names = list(arms)
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        arms[name](calls)  # warm
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            if settle is not None:
                settle()
            if collect:
                gc.collect()
            before, before_cpu = time.perf_counter(), time.process_time()
            arms[name](calls)
            cpu[name].append((time.process_time() - before_cpu) / calls)
            wall[name].append((time.perf_counter() - before) / calls)
    return Comparison(wall, cpu)


def latencies(call: Callable[[], object], count: int) -> tuple[float, float]:
    """The 50th and 99th percentile of single calls, in microseconds."""
    clock = time.perf_counter_ns
    taken = [0] * count
    for index in range(count):
        before = clock()
        call()
        taken[index] = clock() - before
    taken.sort()
    return taken[count // 2] / 1000, taken[count * 99 // 100] / 1000


class NoSpans(SpanExporter):
    """An exporter that counts spans and throws them away."""

    def __init__(self) -> None:
        self.count = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.count += len(spans)
        return SpanExportResult.SUCCESS


def provider(exporter: SpanExporter | None = None, batch: int = 512) -> TracerProvider:
    """A provider with a BatchSpanProcessor whose queue is long enough to lose nothing."""
    made = TracerProvider(resource=Resource.create({"service.name": "shop"}), shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(exporter or NoSpans(), max_queue_size=NO_LIMIT, max_export_batch_size=batch))
    return made


def client(**options: Any) -> FailpathClient:
    """A client that takes its options from here alone."""
    return FailpathClient(**{"flows": False, "max_queue_size": NO_LIMIT, "send_timeout_millis": 60_000, **options})


class Sink:
    """The process of ``sink.py``."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("sink.py")), *options]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def counts(self) -> dict[str, int]:
        """What came so far, once no more is being counted."""
        known: dict[str, int] = {}
        while True:
            with urllib.request.urlopen(f"{self.url}/counts", timeout=30) as response:
                counts: dict[str, int] = json.load(response)
            if counts == known:
                return counts
            known = counts
            time.sleep(0.3)


def versions(*names: str) -> str:
    """What was measured on what."""
    found = [f"failpath-otel {__version__}", *(f"{name} {version(name)}" for name in ("opentelemetry-sdk", *names))]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    return f"Python {platform.python_version()}, {', '.join(found)}, {os.cpu_count()} cores, load {load}"


@dataclass(frozen=True)
class Row:
    """One line of the table: what, how much, and the bound where there is one."""

    what: str
    measured: str
    bound: str = ""
    met: bool | None = None


def report(name: str, rows: Sequence[Row], *packages: str) -> None:
    """Prints the rows and keeps them for ``table.py``."""
    header = versions(*packages)
    print(f"{name}: {header}")
    width = max(len(row.what) for row in rows)
    for row in rows:
        verdict = "" if row.met is None else "  met" if row.met else "  MISSED"
        bound = f"  [bound {row.bound}]" if row.bound else ""
        print(f"  {row.what:{width}}  {row.measured}{bound}{verdict}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = {"versions": header, "quick": QUICK, "rows": [vars(row) for row in rows]}
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
