from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.delivery import ScriptedExporter
from support.http_sink import HttpSink, http_sink

from failpath_otel import FailpathClient, notices
from failpath_otel.delivery import Delivery


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """No option from the environment, and no warning that an earlier test has given already."""
    for name in list(os.environ):
        if name.startswith(("FAILPATH_", "OTEL_EXPORTER_")) and name not in ("FAILPATH_TEST_INSTALLED", "FAILPATH_CHROMIUM"):
            monkeypatch.delenv(name)
    notices.forget()


@pytest.fixture
def sink() -> Iterator[HttpSink]:
    with http_sink() as sink:
        yield sink


@pytest.fixture
def deliver() -> Iterator[Callable[..., Delivery]]:
    """Makes deliveries with small waits, and ends them."""
    made: list[tuple[Delivery, Any]] = []

    def make(exporter: Any, **options: Any) -> Delivery:
        delivery = Delivery(exporter, **{"max_queue_size": 10_000, "linger_millis": 5, **options})
        made.append((delivery, exporter))
        return delivery

    yield make
    for delivery, exporter in made:
        if isinstance(exporter, ScriptedExporter):
            exporter.gate.set()
        delivery.shutdown(0)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads of deliveries that were started since, alive or not."""
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def noting(thread: threading.Thread) -> None:
        if thread.name == "failpath-delivery":
            started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noting)
    return started


@pytest.fixture
def client() -> Iterator[Callable[..., FailpathClient]]:
    """Makes clients without flows.json, and ends them."""
    made: list[FailpathClient] = []

    def make(**options: Any) -> FailpathClient:
        client = FailpathClient(**{"flows": False, **options})
        made.append(client)
        return client

    yield make
    for each in made:
        each.shutdown(0)


PRELUDE = """\
import atexit, multiprocessing, os, signal, sys, threading, time
from failpath_otel import FailpathClient

def make(**options):
    return FailpathClient(flows=False, **options)

def told(name, value):
    print(f"{name}={value}", flush=True)
"""


@pytest.fixture
def script(sink: HttpSink, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a Python script that sends to ``sink``; `finish` waits for its end."""
    started: list[subprocess.Popen[str]] = []

    def start(body: str, **env: str) -> subprocess.Popen[str]:
        path = tmp_path / "script.py"
        path.write_text(PRELUDE + textwrap.dedent(body))
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", str(path)],
            env={**os.environ, "FAILPATH_DEV_ENDPOINT": sink.url, "PYTHONFAULTHANDLER": "1", **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its children too, which hold its pipes open
        process.communicate()


@pytest.fixture
def finish(script: Callable[..., subprocess.Popen[str]]) -> Callable[..., dict[str, str]]:
    """Runs a script to its end, which must be clean and quiet; what it told."""

    def run(body: str, *, code: int = 0, timeout: float = 60, noise: str | None = None, **env: str) -> dict[str, str]:
        process = script(body, **env)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"the script does not end: {process.communicate()}")
        assert process.returncode == code, err
        if noise is None:
            assert err == ""
        else:
            assert noise in err
        return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)

    return run
