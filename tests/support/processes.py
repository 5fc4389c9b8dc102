"""One small service over every server model: what it is, how it is started and stopped, and what it has to have told."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from support.http_sink import HttpSink
from support.served import environment, until

BIN = Path(sys.executable).parent
SECONDS = 60

SHOP = """
import os

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from failpath_otel import FailpathClient
from failpath_otel.integrations.asgi import FailpathMiddleware

trace.set_tracer_provider(TracerProvider())
failpath = FailpathClient(flows=False)
tracer = trace.get_tracer("a-library")
# With --preload this is in the process that the workers are forked from, and has its delivery running.
failpath.run("boot", os.getpid()).step("import", lambda: None)


def decline():
    raise ValueError("declined")


def serve(run_id):
    run = failpath.run("checkout", run_id)
    run.step("validate", lambda: None)
    with run.step("reserve"):
        names = {"failpath.flow.slug": "checkout", "failpath.run.id": run_id, "failpath.step.key": "stock"}
        with tracer.start_as_current_span("a span of a library", attributes=names):
            pass
    try:
        run.step("charge", decline)
    except ValueError:
        run.skip("mail")
    return str(os.getpid()).encode()


def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [serve(environ["QUERY_STRING"])]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if os.environ["FLUSHES"] == "itself":
            await failpath.aflush()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = serve(scope["query_string"].decode())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


by_middleware = FailpathMiddleware(asgi, failpath)
"""

TOLD = {
    ("validate", "running"), ("validate", "success"),
    ("reserve", "running"), ("reserve", "success"),
    ("stock", "running"), ("stock", "success"),
    ("charge", "running"), ("charge", "error"),
    ("mail", "skipped"),
}  # fmt: skip
"""What each run of the shop tells, each once."""


def settings(sink: HttpSink, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process that reports to ``sink``; warnings are shown, but for sockets that servers leave open."""
    return environment({"FAILPATH_DEV_ENDPOINT": sink.url, "PYTHONWARNINGS": "always,ignore::ResourceWarning", **(extra or {})})


@contextmanager
def running(
    folder: Path, env: Mapping[str, str], *command: str, ends_by: int = signal.SIGTERM
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A program, and the file with what it says. With the block it is told to end, and it ends."""
    log = folder / "said.log"
    with log.open("wb") as said:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=said, stderr=said, start_new_session=True)
    try:
        yield process, log
        process.send_signal(ends_by)
        process.wait(SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(SECONDS)


@contextmanager
def serving(folder: Path, env: Mapping[str, str], *command: str) -> Iterator[tuple[str, Path]]:
    """A server with several processes: its address, and the file with what it says. Ends by SIGTERM, with the block."""
    with running(folder, env, *command) as (process, log):
        found = until(lambda: re.search(r"http://127\.0\.0\.1:[1-9]\d*", log.read_text()) or process.poll(), SECONDS)
        assert process.poll() is None, log.read_text()
        yield found.group(), log


def ask(url: str, run_id: str) -> str | None:
    """Which process served the run; nothing while there is none. Each over its own connection, so that both get some."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("GET", f"/?{run_id}")
        response = connection.getresponse()
        return response.read().decode() if response.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def fill(url: str, processes: int) -> dict[str, str]:
    """Runs in every process of the server, by run id."""
    served: dict[str, str] = {}
    until(lambda: ask(url, "first"), SECONDS)

    def answered() -> bool:
        names = [f"r{len(served) + number}" for number in range(12)]
        for name, process in zip(names, pool.map(lambda run_id: ask(url, run_id), names), strict=True):
            assert process is not None
            served[name] = process
        return len(set(served.values())) == processes

    with ThreadPoolExecutor(6) as pool:
        until(answered, SECONDS)
    return served


def script(folder: Path, source: str, env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python script that ends well by itself."""
    (folder / "service.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "service.py", *arguments],
        cwd=folder,
        env=dict(env),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def arrived(sink: HttpSink) -> dict[str, Counter[tuple[str, str]]]:
    """How often each event came, by run, step and status."""
    found: dict[str, Counter[tuple[str, str]]] = {}
    for identity, times in sink.arrivals.items():
        event: dict[str, Any] = sink.stored[identity]
        found.setdefault(event["runId"], Counter())[event["stepKey"], event["status"]] += times
    return found


def once(*told: tuple[str, str]) -> Counter[tuple[str, str]]:
    """Each of these one time."""
    return Counter(told)
