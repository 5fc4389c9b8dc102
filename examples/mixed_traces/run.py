"""Steps inside traces that were there before, in both views: ``python run.py``. ``--keep`` stays and opens them."""

from __future__ import annotations

import subprocess
import sys
import webbrowser
from pathlib import Path
from urllib.parse import urlencode

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import END_SECONDS, Stage, call, keeps, staged, trace_ids
from traces import Traces, taking_traces

FLOW = "nightly-import"
EXPECTED = {
    "monday": {"download": "success", "check-rows": "success", "write-rows": "success", "publish": "success"},
    "tuesday": {"download": "success", "check-rows": "error", "write-rows": "missing", "publish": "missing"},
}
# The traces of each run; the import and its publication are two.
TRACES = {"monday": 2, "tuesday": 1}


def views(stage: Stage, traces: Traces, run_id: str) -> list[str]:
    """The address of the run's page, and of each trace that this page links to, in the order of the traces."""
    run = stage.run(FLOW, run_id)
    ordered = sorted(trace_ids(run), key=lambda trace_id: traces.of(trace_id)[0][1].start_time_unix_nano)
    page = f"{stage.server}/run?{urlencode({'flow': FLOW, 'run_id': run_id})}"
    return [page, *(traces.template().format(trace_id=trace_id) for trace_id in ordered)]


def main() -> int:
    keep = keeps()
    options = ("--flows", str(HERE / ".failpath" / "flows.json"))
    with taking_traces() as traces, staged(HERE, *options, "--trace-url", traces.template()) as stage:
        importer = stage.process("importer", [sys.executable, "importer.py"], **traces.environ())
        try:
            done = importer.wait(4 * END_SECONDS) == 0
        except subprocess.TimeoutExpired:
            done = False
        good = stage.until(FLOW, EXPECTED) and done
        for run_id, count in TRACES.items():
            page, *linked = views(stage, traces, run_id)
            good = good and call("GET", page)[0] == 200 and len(linked) == count
            print(f"\n{run_id}, traces: {len(linked)}")
            for address in linked:
                print("\n".join(f"  {line}" for line in call("GET", address)[1].decode().splitlines()))
        if keep:
            for address in views(stage, traces, "monday"):
                print(address)
                webbrowser.open(address)
        return stage.end(good=good, keep=keep)


if __name__ == "__main__":
    sys.exit(main())
