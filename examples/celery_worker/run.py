"""One run across two services and a Celery worker: ``python run.py``. ``--keep`` stays, for a look at the page."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import Stage, call, free_port, instruments, keeps, staged, tool, trace_ids, within
from traces import Traces, taking_traces

NO_REDIS = "There is no redis-server: tools/redis.sh installs it as root, or FAILPATH_REDIS names one"
SERVICES = {"shop", "payments", "worker"}
# What automatic instrumentation and the steps make of the first order.
SPANS = 15
ORDERS = {"req_1": "1 Main Street", "req_2": "2 Hill Road", "req_3": "3 Nowhere"}
GOOD = dict.fromkeys(("validate-order", "charge-card", "pack-parcel", "call-courier"), "success")
EXPECTED = {"req_1": GOOD, "req_2": GOOD, "req_3": {**GOOD, "call-courier": "error"}}

ATTEMPTS = [["success"], ["error", "success"], ["error", "error"]]


def service(stage: Stage, name: str, **env: str) -> str:
    port = free_port()
    command = [tool("opentelemetry-instrument"), tool("uvicorn"), f"{name}:app", "--port", str(port)]
    stage.process(name, command, port=port, **env)
    return f"http://127.0.0.1:{port}"


def broker(stage: Stage, program: str) -> str:
    port = free_port()
    stage.process(
        "redis",
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(stage.folder)],
        port=port,
    )
    return f"redis://127.0.0.1:{port}/0"


def worker(stage: Stage, **env: str) -> None:
    command = [tool("opentelemetry-instrument"), tool("celery"), "--app", "tasks", "worker", "--concurrency", "1"]
    stage.process("worker", [*command, "--loglevel", "INFO"], **env)
    if not within(lambda: " ready." in stage.log("worker").read_text()):
        raise SystemExit(f"the worker did not come up:\n{stage.log('worker').read_text()[-3000:]}")


def one_trace(stage: Stage, traces: Traces, run_id: str) -> bool:
    """Prints the one trace of a run, with the spans of all three processes."""
    found = trace_ids(stage.run("checkout", run_id))
    if len(found) != 1:
        print(f"\n{run_id} is in {len(found)} traces")
        return False
    (trace_id,) = found
    whole = traces.until(trace_id, SPANS) and {name for name, _ in traces.of(trace_id)} == SERVICES
    print(f"\n{run_id} is one run in one trace:" if whole else f"\nThe trace of {run_id} is not whole:")
    print("\n".join(f"  {line}" for line in traces.tree(trace_id)), flush=True)
    return whole


def attempts(stage: Stage, run_id: str) -> list[str]:
    steps = stage.run("checkout", run_id)["steps"]
    return [attempt["status"] for step in steps if step["stepKey"] == "call-courier" for attempt in step["attempts"]]


def main() -> int:
    keep = keeps()
    program = os.environ.get("FAILPATH_REDIS") or shutil.which("redis-server")
    if program is None:
        print(NO_REDIS, file=sys.stderr)
        return 2
    options = ("--flows", str(HERE / ".failpath" / "flows.json"))
    with taking_traces() as traces, staged(HERE, *options, "--trace-url", traces.template()) as stage:
        env = {**traces.environ(), **instruments("celery", "fastapi", "httpx"), "BROKER_URL": broker(stage, program)}
        worker(stage, **env)
        shop = service(stage, "shop", **env, PAYMENTS_URL=service(stage, "payments", **env))
        for run_id, address in ORDERS.items():
            order = {"card": "visa", "address": address}
            status, body = call("POST", f"{shop}/checkout", order, {"x-request-id": run_id})
            print(f"POST /checkout  {run_id}  {status} {body.decode()}", flush=True)
        good = stage.until("checkout", EXPECTED)
        # The second attempt of the last order comes after its step is known as an error.
        good = within(lambda: [attempts(stage, run_id) for run_id in EXPECTED] == ATTEMPTS) and good
        print(f"\nAttempts at call-courier: {[attempts(stage, run_id) for run_id in EXPECTED]}")
        good = one_trace(stage, traces, "req_1") and good
        return stage.end(good=good, keep=keep)


if __name__ == "__main__":
    sys.exit(main())
