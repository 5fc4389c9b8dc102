"""One run across an HTTP hop: ``python run.py``. ``--keep`` stays, for a look at the page."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import Stage, call, free_port, instruments, keeps, staged, tool, trace_ids

EXPECTED = {
    "req_1": {"validate-cart": "success", "reserve-stock": "success", "pick-parcel": "success", "charge-card": "success"},
    "req_2": {"validate-cart": "success", "reserve-stock": "error", "pick-parcel": "missing", "charge-card": "missing"},
}


def service(stage: Stage, name: str, **env: str) -> str:
    port = free_port()
    command = [tool("opentelemetry-instrument"), tool("uvicorn"), f"{name}:app", "--port", str(port)]
    stage.process(name, command, port=port, OTEL_TRACES_EXPORTER="none", **instruments("fastapi", "httpx"), **env)
    return f"http://127.0.0.1:{port}"


def main() -> int:
    keep = keeps()
    with staged(HERE, "--flows", str(HERE / ".failpath" / "flows.json")) as stage:
        shop = service(stage, "shop", WAREHOUSE=service(stage, "warehouse"))
        for run_id, count in (("req_1", 2), ("req_2", 20)):
            status, body = call("POST", f"{shop}/checkout", {"tea": count}, {"x-request-id": run_id})
            print(f"POST /checkout  {run_id}  {status} {body.decode()}", flush=True)
        good = stage.until("checkout", EXPECTED)
        traces = [len(trace_ids(stage.run("checkout", run_id))) for run_id in EXPECTED]
        good = good and traces == [1, 1]
        return stage.end(good=good, keep=keep, said=f"Traces of each run: {traces}. ")


if __name__ == "__main__":
    sys.exit(main())
