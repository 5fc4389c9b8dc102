"""What the examples share: a server and services as processes on free ports, a table of what the server knows, an end."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

START_SECONDS = 60
KNOWN_SECONDS = 60
END_SECONDS = 15

Steps = Mapping[str, str]
"""Step key → status, as the API has them."""


def keeps() -> bool:
    """Whether ``--keep`` asks for the example to stay until Ctrl-C."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", action="store_true", help="stay until Ctrl-C, to look at the page")
    return parser.parse_args().keep


def tool(name: str) -> str:
    """A program of the environment that runs this one, which need not be on the path."""
    return str(Path(sys.executable).with_name(name))


def free_port() -> int:
    """A port of loopback that nobody listens on, from below those that the system gives to outgoing connections."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no free port was found")


def instruments(*names: str) -> dict[str, str]:
    """Has ``opentelemetry-instrument`` leave out what else is installed here; to import all of it takes seconds a process."""
    every = {point.name for point in entry_points(group="opentelemetry_instrumentor")}
    return {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(sorted(every.difference(names)))}


class Stage:
    """The processes of an example; all of them are ended with it, the last one first."""

    def __init__(self, folder: Path) -> None:
        self._here = folder
        self._stack = contextlib.ExitStack()
        self.server = ""

    def __enter__(self) -> Stage:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the others are ended then, too
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        return self

    def __exit__(self, *of_exception: object) -> None:
        self._stack.close()

    def serve(self, *options: str, port: int | None = None) -> str:
        """Starts ``failpath-otel serve``; gives its address. Processes started afterwards send there."""
        port = port or free_port()
        command = [tool("failpath-otel"), "serve", "--port", str(port), "--db", str(self.folder / "runs.db"), *options]
        self.process("server", command, port=port)
        self.server = f"http://127.0.0.1:{port}"
        return self.server

    def process(self, name: str, command: list[str], *, port: int | None = None, **env: str) -> subprocess.Popen[bytes]:
        """Starts a program in the example's folder; with ``port`` it is there when that can be reached.

        In a session of its own: Ctrl-C reaches the example alone, which ends the others in order.
        """
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("FAILPATH_", "OTEL_"))}
        told = {"OTEL_SERVICE_NAME": name, **({"FAILPATH_DEV_ENDPOINT": self.server} if self.server else {})}
        with self.log(name).open("wb") as log:
            started = subprocess.Popen(  # noqa: S603 - programs that the example itself names
                command, env={**clean, **told, **env}, cwd=self._here, stdout=log, stderr=log, start_new_session=True
            )
        self._stack.callback(_end, started)
        if port is not None:
            self._wait_until_open(name, port, started)
        return started

    def log(self, name: str) -> Path:
        """Where a process writes what it says."""
        return self.folder / f"{name}.log"

    def _wait_until_open(self, name: str, port: int, started: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            if started.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name} did not come up:\n{self.log(name).read_text()[-3000:]}")
            time.sleep(0.1)

    def run(self, flow: str, run_id: str) -> dict[str, Any]:
        """All that the server knows of a run."""
        return get(self.server, "/api/run", flow=flow, run_id=run_id)

    def until(self, flow: str, expected: Mapping[str, Steps]) -> bool:
        """Waits until each run of ``expected`` has exactly these statuses; prints what the server knows in either case."""
        known = within(lambda: all(statuses(self.run(flow, run_id)) == steps for run_id, steps in expected.items()))
        for run_id in expected:
            print(f"\n{flow}  {run_id}")
            print_steps(self.run(flow, run_id))
        if not known:
            print(f"\nThis is not what was done: {dict(expected)}", file=sys.stderr)
            for log in sorted(self.folder.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-2000:]}", file=sys.stderr)
        return known

    def end(self, *, good: bool, keep: bool, said: str = "") -> int:
        """Says whether all is as it was done, stays if it is to be kept; gives the exit code."""
        print(f"\n{said}{'As it was done.' if good else 'Not as it was done.'}", flush=True)
        if keep:
            self.stay()
        return 0 if good else 1

    def stay(self) -> None:
        """Until Ctrl-C."""
        print(f"\nThe page: {self.server}  (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(1)


def get(server: str, path: str, **query: str) -> dict[str, Any]:
    """A call of the server's API; empty where it does not know the answer."""
    status, body = call("GET", f"{server}{path}?{urlencode(query)}")
    return json.loads(body) if status == 200 else {}


def call(method: str, url: str, body: object = None, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """An HTTP call to loopback: status and body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    sent = None if body is None else json.dumps(body).encode()
    fields = {**({"content-type": "application/json"} if sent else {}), **(headers or {})}
    with contextlib.closing(connection):
        connection.request(method, f"{parts.path}?{parts.query}" if parts.query else parts.path, sent, fields)
        answer = connection.getresponse()
        return answer.status, answer.read()


def statuses(run: Mapping[str, Any]) -> dict[str, str]:
    """Step key → status."""
    return {step["stepKey"]: step["status"] for step in run.get("steps", ())}


def print_steps(run: Mapping[str, Any]) -> None:
    """The steps of a run as a table."""
    for step in run.get("steps", ()):
        error = step["error"] or {}
        detail = (
            step["skipReason"] or step["missingReason"] or ": ".join(filter(None, (error.get("name"), error.get("message"))))
        )
        print(f"  {step['stepKey']:20} {step['status']:8} {step['service'] or '':10} {detail}".rstrip())


def trace_ids(run: Mapping[str, Any]) -> set[str]:
    """The traces that the steps of a run are in."""
    return {attempt["traceId"] for step in run.get("steps", ()) for attempt in step["attempts"]}


def within(condition: Callable[[], bool]) -> bool:
    """Whether it comes to hold in `KNOWN_SECONDS`."""
    deadline = time.monotonic() + KNOWN_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _end(started: subprocess.Popen[bytes]) -> None:
    started.terminate()
    try:
        started.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()


@contextlib.contextmanager
def staged(folder: Path, *options: str) -> Iterator[Stage]:
    """A `Stage` with the server running; its address is printed."""
    with Stage(folder) as stage:
        print(f"server   {stage.serve(*options)}", flush=True)
        yield stage
