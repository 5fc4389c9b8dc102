"""A real server for tests: as a process of its own, or in a thread of this one, and a client that speaks plain HTTP."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from failpath_otel.server.serve import Address, Server, build, listen
from failpath_otel.server.settings import Settings

START_SECONDS = 60
END_SECONDS = 60
"""Far more than an end takes on a busy machine; what a test lets hang hangs for longer."""


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Calls one server over one connection that is kept alive."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    grpc: str = ""
    """Host and port for OTLP/gRPC, where the server takes it."""
    _connection: http.client.HTTPConnection | None = None

    def connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        if self._connection is None:
            self._connection = self.connect()
        try:
            self._connection.request(method, path, body, {**self.headers, **(headers or {})})
            response = self._connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        except (OSError, http.client.HTTPException):
            self.close()
            raise

    def get(self, path: str, headers: Mapping[str, str] | None = None, **query: Any) -> Reply:
        return self.request("GET", f"{path}?{urlencode(query)}" if query else path, headers=headers)

    def post(self, path: str, body: bytes | dict[str, Any], headers: Mapping[str, str] | None = None) -> Reply:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, raw, {"Content-Type": "application/json", **(headers or {})})

    def send_events(self, *events: dict[str, Any]) -> Reply:
        return self.post("/v1/events", {"events": list(events)})

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass
class Served(Client):
    """A server in a process of its own."""

    process: subprocess.Popen[str] = None  # type: ignore[assignment]
    log: Path = Path()
    said: list[str] = field(default_factory=list)

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """Sends a signal and gives the exit code."""
        self.process.send_signal(sig)
        return self.process.wait(timeout=END_SECONDS)

    def end(self) -> None:
        self.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=END_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()


def command(*arguments: str, before: str = "") -> list[str]:
    if before:
        return [sys.executable, "-c", f"{before}\nfrom failpath_otel.cli import main\nmain()", *arguments]
    return [sys.executable, "-m", "failpath_otel.cli", *arguments]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, without options of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FAILPATH_", "OTEL_"))}
    return {**kept, **(extra or {})}


def start(folder: Path, *arguments: str, env: Mapping[str, str] | None = None, before: str = "") -> Served:
    """A server that is ready, its database in ``folder`` unless the arguments say otherwise.

    ``before`` is Python that its process runs first, such as one that sets a constant.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    db = () if {"--db", "--no-store", "FAILPATH_NO_STORE"} & {*arguments, *(env or {})} else ("--db", str(folder / "runs.db"))
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command("serve", "--port", "0", *db, *arguments, before=before),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=folder,
            env=environment(env),
        )
    served = Served("", process=process, log=log)
    try:
        first = _first_line(process)
        assert first.startswith("failpath-otel is listening on http://"), (first, log.read_text())
    except BaseException:
        served.end()
        raise
    served.url = first.rpartition(" ")[2]
    served.said = [first]
    if "--grpc-port" in arguments or "FAILPATH_GRPC_PORT" in (env or {}):
        assert process.stdout is not None
        served.said.append(process.stdout.readline().strip())  # all lines are said at once
        served.grpc = served.said[-1].removeprefix("OTLP/gRPC is taken on ")
    return served


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    assert ready, f"the server said nothing for {START_SECONDS} s"
    return process.stdout.readline().strip()


@contextmanager
def in_thread(settings: Settings) -> Iterator[Client]:
    """A server on a real socket, in a thread of this process: quick to start."""
    ready: Future[Address] = Future()
    with listen(settings.host, settings.port) as listener:
        server = build(settings, listener, ready.set_result)
        thread = threading.Thread(target=_run, args=(server, listener), name="test-server")
        thread.start()
        try:
            address = ready.result(START_SECONDS)
            client = Client(address.url, grpc=address.grpc or "")
            try:
                yield client
            finally:
                client.close()
        finally:
            server.stop()
            thread.join(timeout=END_SECONDS)
            assert not thread.is_alive()


def _run(server: Server, listener: Any) -> None:
    server.run(sockets=[listener])


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What ``condition`` gives once it is true; fails after ``seconds``, which are for a busy machine and no bound to keep."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, "the condition did not come true in time"
        threading.Event().wait(0.02)


def event(run_id: str = "run", step_key: str = "step", status: str = "success", **more: Any) -> dict[str, Any]:
    """A wire event; its id follows from run, step and status."""
    end = "start" if status == "running" else "end"
    plain = {
        "eventId": f"{run_id}-{step_key}-{end}",
        "flowKey": "checkout",
        "runId": run_id,
        "stepKey": step_key,
        "status": status,
        "timestamp": "2026-03-01T12:00:01.000000Z",
    }
    return {**plain, **more}
