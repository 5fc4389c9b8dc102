"""Starts a server, a Collector and a service, and prints each step as the server comes to know it: ``python run.py``.

The service sends to the Collector alone, so whatever is printed came through it. On a terminal it goes on until Ctrl-C;
elsewhere it ends after three runs, with exit code 0 where all of them are known as they were.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import free_port

REPOSITORY = HERE.parent.parent
CONFIG = REPOSITORY / "collector-config" / "quickstart.yaml"
ORDERS = 3
# What the service does with its first three orders.
EXPECTED = {
    "order-1": {"validate-cart": "success", "charge-card": "success", "create-order": "success", "send-receipt": "success"},
    "order-2": {"validate-cart": "success", "charge-card": "error", "create-order": "missing", "send-receipt": "missing"},
    "order-3": {"validate-cart": "success", "charge-card": "success", "create-order": "success", "send-receipt": "success"},
}
START_SECONDS = 60
SEEN_SECONDS = 60
NO_COLLECTOR = """There is no Collector here. One of these helps:
  make collector                      builds one into the cache (needs Go and about 4 minutes, once)
  OTELCOL=/path/to/otelcol-contrib    names one that you have: the contrib distribution, 0.158.0 or near it"""


def find_collector() -> str | None:
    """The Collector's program: from the environment, built by ``make collector``, or on the path."""
    if os.environ.get("OTELCOL"):
        return os.environ["OTELCOL"]
    where = subprocess.run([REPOSITORY / "tools" / "collector.sh", "--where"], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    built = Path(where.stdout.strip() or "/nowhere") / "otelcol-failpath"
    return str(built) if built.exists() else shutil.which("otelcol-contrib")


@contextlib.contextmanager
def process(name: str, command: list[str], env: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, so that Ctrl-C reaches this one alone, which then ends the others in order."""
    with (folder / f"{name}.log").open("wb") as log:
        started = subprocess.Popen(command, env=env, cwd=HERE, stdout=log, stderr=log, start_new_session=True)  # noqa: S603 - ours
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def wait_until_open(name: str, port: int, started: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        if started.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the {name} did not come up:\n{(folder / f'{name}.log').read_text()[-2000:]}")
        time.sleep(0.1)


def get(server: str, path: str, **query: str) -> dict:
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=10)
    try:
        connection.request("GET", f"{path}?{urlencode(query)}" if query else path)
        answer = connection.getresponse()
        body = json.load(answer)
        return body if answer.status == 200 else {}
    finally:
        connection.close()


def news(server: str) -> Iterator[tuple[str, str]]:
    """Flow and run of each change, as the server's live stream tells them."""
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=SEEN_SECONDS)
    connection.request("GET", "/api/live")
    with contextlib.closing(connection), connection.getresponse() as stream:
        for line in stream:
            if line.startswith(b"data: "):
                change = json.loads(line[6:])
                yield change["flow"], change["runId"]


def follow(server: str, shown: dict[str, dict[str, str]], known: threading.Event) -> None:
    """Prints each step as its status changes; says so when the first orders are known as they were."""
    for flow, run_id in news(server):
        if flow is None:
            continue
        seen = shown.setdefault(run_id, {})
        for step in get(server, "/api/run", flow=flow, run_id=run_id).get("steps", ()):
            key, status = step["stepKey"], step["status"]
            if status == seen.get(key) or step["missingReason"] in ("not_yet", "never_instrumented"):
                continue
            seen[key] = status
            detail = step["skipReason"] or (step["error"] or {}).get("message") or ""
            if status == "success":
                detail = f"{step['durationMs']:.0f} ms"
            print(f"  {time.strftime('%H:%M:%S')}  {run_id:10} {key:14} {status:8} {detail}", flush=True)
        if all(shown.get(order) == steps for order, steps in EXPECTED.items()):
            known.set()


def spans_in(backend: Path) -> int:
    """How many spans the Collector wrote to the file that stands for another backend."""
    requests = [json.loads(line) for line in backend.read_text().splitlines()]
    groups = [group for request in requests for group in request.get("resourceSpans", ())]
    return sum(len(scope["spans"]) for group in groups for scope in group["scopeSpans"])


def main() -> int:
    collector = find_collector()
    if collector is None:
        print(NO_COLLECTOR, file=sys.stderr)
        return 2
    stays = sys.stdout.isatty() or "--stay" in sys.argv
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("FAILPATH_", "OTEL_"))}
    server_port, http_port = free_port(), free_port()
    server = f"http://127.0.0.1:{server_port}"
    to_collector = {
        "FAILPATH_ENDPOINT": server,
        "OTELCOL_OTLP_HTTP": f"127.0.0.1:{http_port}",
        "OTELCOL_OTLP_GRPC": f"127.0.0.1:{free_port()}",
        "OTELCOL_HEALTH": f"127.0.0.1:{free_port()}",
    }
    own_metrics = "yaml:service::telemetry::metrics::level: none"
    to_service = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{http_port}",
        "FAILPATH_EXPORTER": "otlp",
        "OTEL_SERVICE_NAME": "shop",
    }
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        to_collector["BACKEND_FILE"] = str(folder / "backend.jsonl")
        serve = [
            sys.executable,
            "-m",
            "failpath_otel.cli",
            "serve",
            "--port",
            str(server_port),
            "--db",
            str(folder / "runs.db"),
        ]
        wait_until_open("server", server_port, stack.enter_context(process("server", serve, plain, folder)), folder)
        collect = [collector, "--config", str(CONFIG), "--config", own_metrics]
        wait_until_open(
            "collector", http_port, stack.enter_context(process("collector", collect, plain | to_collector, folder)), folder
        )
        print(f"server     {server}")
        print(f"collector  http://127.0.0.1:{http_port}  with collector-config/{CONFIG.name}")
        print(
            f"service    sends to the Collector alone; steps as the server knows them{', until Ctrl-C' if stays else ''}:",
            flush=True,
        )
        known = threading.Event()
        shown: dict[str, dict[str, str]] = {}
        threading.Thread(target=_follow_quietly, args=(server, shown, known), daemon=True).start()
        work = [sys.executable, str(HERE / "service.py"), *([] if stays else [str(ORDERS)])]
        stack.enter_context(process("service", work, plain | to_service, folder))
        try:
            if not known.wait(SEEN_SECONDS):
                print(f"the first {ORDERS} runs are not known as they were: {shown}", file=sys.stderr)
                return 1
            print(
                f"All {ORDERS} runs are known as they were. The other backend has {spans_in(folder / 'backend.jsonl')} spans.",
                flush=True,
            )
            while stays:
                time.sleep(1)
        except KeyboardInterrupt:
            print()
    return 0


def _follow_quietly(server: str, shown: dict[str, dict[str, str]], known: threading.Event) -> None:
    # When all is ended, the stream ends too.
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        follow(server, shown, known)


if __name__ == "__main__":
    sys.exit(main())
