"""One version of the package beside another: the same measurements in both environments, in turn, and the ratios.

A change that is to cost nothing is measured so, on a machine that others share: each round measures both, in alternating order,
and the ratio is that of a round. Make an environment for the other version (a wheel of the other commit, or a release), then

Usage: ``python benchmarks/beside.py PYTHON_OF_THE_OTHER [rounds, default 9] [thousands of spans, default 20]``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from statistics import median, quantiles
from typing import Any

from bench_server_ingest import accepted, cpu_seconds, events_of, send, spans_of, with_server
from bench_step import ARMS, NoEvents, beside_a_bare_span
from harness import client, provider, versions

MEASURES = {
    "run.step, µs a call": "step",
    "run.step beside a bare span, ×": "step_ratio",
    "server, processor time a step span, µs": "span_cpu",
    "server, processor time a wire event, µs": "event_cpu",
    "server, seconds a thousand step spans": "span_seconds",
}


def measured(thousands: int) -> dict[str, float]:
    """The measurements of the version that this process runs on; smaller is better in all of them."""
    theirs, ours = provider(), provider()
    with client(tracer_provider=ours, exporter=NoEvents()) as failpath:
        compared = beside_a_bare_span(theirs, ours, failpath, calls=1000, rounds=40)
    found = {"step": compared.micros(ARMS[1]).median, "step_ratio": compared.ratio(ARMS[1], ARMS[0]).median}
    loads = {"span": spans_of(thousands * 1000, 0), "event": events_of(thousands * 1000)}

    def work(url: str, pid: int) -> None:
        send(url, spans_of(2000, 0))
        for name, load in loads.items():
            before, cpu = accepted(url), cpu_seconds(pid)
            seconds = send(url, load)
            if (stored := accepted(url) - before) != load.steps:
                raise SystemExit(f"{load.name}: {load.steps} sent, {stored} stored")
            found[f"{name}_cpu"] = (cpu_seconds(pid) - cpu) / load.items * 1e6
            found[f"{name}_seconds"] = seconds / load.items * 1000

    with tempfile.TemporaryDirectory() as folder:
        with_server(folder, ("--db", f"{folder}/runs.db"), None, work)
    return found


def main() -> None:
    """Prints a ratio for each measurement: this version's over the other's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("other")
    parser.add_argument("rounds", nargs="?", type=int, default=9)
    parser.add_argument("thousands", nargs="?", type=int, default=20)
    parser.add_argument("--child", action="store_true")
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps({"versions": versions("msgspec", "sqlalchemy", "uvicorn"), **measured(asked.thousands)}))
        return
    found: dict[str, list[dict[str, Any]]] = {sys.executable: [], asked.other: []}
    for number in range(asked.rounds):
        for python in list(found) if number % 2 == 0 else list(reversed(found)):
            command = [python, __file__, "-", "1", str(asked.thousands), "--child"]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[python].append(json.loads(done.stdout.splitlines()[-1]))
    for python, rounds in found.items():
        print(f"{'this' if python == sys.executable else 'the other'}: {rounds[-1]['versions']}")
    for what, name in MEASURES.items():
        pairs = list(zip(found[sys.executable], found[asked.other], strict=True))
        ratios = [this[name] / other[name] for this, other in pairs]
        low, _, high = quantiles(ratios, n=4)
        this, other = (median(values) for values in zip(*((one[name], two[name]) for one, two in pairs), strict=True))
        print(f"  {what:42} {median(ratios):.3f} × the other (quartiles {low:.3f} to {high:.3f}); {this:.2f}, {other:.2f}")


if __name__ == "__main__":
    main()
