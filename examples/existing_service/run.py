"""Runs the service as it was before and as it is after, each with the same three requests, and shows who saw what.

``python examples/existing_service/run.py``. It starts a trace backend that keeps what it gets, a payment provider, the server
``failpath-otel serve``, and the service, all on free ports of this machine.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span

HERE = Path(__file__).parent
START_SECONDS = 30
ORDERS: list[dict[str, Any]] = [
    {"id": "req_1", "items": {"moka-pot": 1}, "card": "tok_visa"},
    {"id": "req_2", "items": {"moka-pot": 1}, "card": "tok_declined"},
    {"id": "req_3", "items": {"espresso-cup": 2}, "card": "tok_visa", "wants_receipt": False},
]


@dataclass
class Seen:
    """What one version of the service left behind: spans at the trace backend, runs at the server, answers to its caller."""

    spans: list[Span] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)


class Backend(BaseHTTPRequestHandler):
    """A trace backend (``/v1/traces``) and a payment provider (``/charges``)."""

    spans: list[Span]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    self.spans.extend(scope.spans)
            self.answer(200, ExportTraceServiceResponse().SerializeToString(), "application/x-protobuf")
        else:
            declined = json.loads(body)["card"] == "tok_declined"
            self.answer(402 if declined else 200, b"{}", "application/json")

    def answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Stays silent."""


def watch(script: str) -> Seen:
    """Runs one version of the service, sends it the orders, ends it, and tells what was seen of it."""
    seen = Seen()
    with tempfile.TemporaryDirectory() as folder, backend(seen.spans) as traces, server(Path(folder)) as failpath:
        environ = {**clean_environment(), "PORT": "0", "PAYMENTS_URL": traces}
        environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": traces, "FAILPATH_DEV_ENDPOINT": failpath}
        with process([sys.executable, script], environ, Path(folder) / "service", r"running on (http://\S+)") as service:
            for order in ORDERS:
                seen.answers.append(httpx.post(f"{service}/checkout", json=order, trust_env=False).status_code)
        listed = httpx.get(f"{failpath}/api/runs", trust_env=False).json()["runs"]
        for run in listed:
            parameters = {"flow": run["flowKey"], "run_id": run["runId"]}
            seen.runs.append(httpx.get(f"{failpath}/api/run", params=parameters, trust_env=False).json())
    return seen


@contextmanager
def backend(spans: list[Span]) -> Iterator[str]:
    handler = type("Keeping", (Backend,), {"spans": spans})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@contextmanager
def server(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "failpath_otel.cli", "serve", "--port", "0", "--db", str(folder / "runs.db")]
    with process(command, clean_environment(), folder / "server", r"listening on (http://\S+)") as address:
        yield address


@contextmanager
def process(command: list[str], environ: dict[str, str], log: Path, pattern: str) -> Iterator[str]:
    """Starts a process, gives the address that it writes, and ends it with SIGTERM."""
    with log.open("wb") as output:
        started = subprocess.Popen(command, env=environ, cwd=HERE, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603 - ours
    try:
        deadline = time.monotonic() + START_SECONDS
        while not (found := re.search(pattern, log.read_text())):
            if started.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command} did not come up:\n{log.read_text()}")
            time.sleep(0.05)
        yield found[1]
    finally:
        started.terminate()
        started.wait(timeout=20)


def clean_environment() -> dict[str, str]:
    """This environment without settings that would lead elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "FAILPATH_"))}


def main() -> None:
    for script in ("before.py", "after.py"):
        seen = watch(script)
        print(f"{script}: {len(seen.spans)} spans at the trace backend, {len(seen.runs)} runs at the failpath-otel server")
        for name in sorted({span.name for span in seen.spans}):
            print(f"    span  {name}")
        for run in reversed(seen.runs):
            steps = ", ".join(f"{step['stepKey']} {step['status']}" for step in run["steps"])
            print(f"    run   {run['runId']} {run['status']}: {steps}")


if __name__ == "__main__":
    main()
