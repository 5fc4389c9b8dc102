"""`opentelemetry-instrument` with nothing of ours in the code: real processes, a real server."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.served import Served, environment, start, until

pytest.importorskip("opentelemetry.distro")
pytest.importorskip("fastapi")

BIN = Path(sys.executable).parent
SECONDS = 60

SERVICE = """
from opentelemetry import trace
tracer = trace.get_tracer("a-library")
def pay(key, run="1"):
    names = {"failpath.flow.slug": "checkout", "failpath.run.id": run, "failpath.step.key": key}
    with tracer.start_as_current_span("pay", attributes=names):
        pass
"""
LATE_PROVIDER = """
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
pay("charge")
"""
OWN_CLIENT = """
import sys
from failpath_otel import FailpathClient
pay("before")
with FailpathClient(mask=lambda event: event, default_metadata={"by": "the client"}) as client:
    client.run("checkout", "1").step("own", lambda: None)
    pay("with")
pay("after")
"""
WEB = """
import os, time
from fastapi import FastAPI
app = FastAPI()
@app.get("/pay")
async def endpoint(run: str):
    pay("charge", run)
    time.sleep(0.05)  # holds this process's loop, so that the next request is another's
    return os.getpid()
def wsgi(environ, start_response):
    pay("charge", environ["QUERY_STRING"].removeprefix("run="))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


def instrumented(*arguments: str) -> list[str]:
    return [str(BIN / "opentelemetry-instrument"), *arguments]


def settings(extra: dict[str, str]) -> dict[str, str]:
    quiet = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    # What has no part in this only costs time, and SQLAlchemy's instrumentation says that it does not know this version.
    others = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "sqlalchemy,django,celery,flask,threading,asyncio"}
    return environment({**quiet, **others, "OTEL_SERVICE_NAME": "shop", **extra})


def run(source: str, folder: Path, extra: dict[str, str]) -> str:
    """What an instrumented script says on standard error; it has to end well."""
    (folder / "service.py").write_text(SERVICE + source)
    done = subprocess.run(
        instrumented(sys.executable, "service.py"),
        cwd=folder,
        env=settings(extra),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr + done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = start(tmp_path_factory.mktemp("server"))
    yield served
    served.end()


@contextmanager
def serving(
    folder: Path, extra: dict[str, str], *command: str, source: tuple[str, str] = ("service.py", SERVICE + WEB)
) -> Iterator[str]:
    """A web service, perhaps of several processes, by its address."""
    (folder / source[0]).write_text(source[1])
    log = folder / "service.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            instrumented(*command), cwd=folder, env=settings(extra), stdout=said, stderr=said, start_new_session=True
        )
    try:
        found = until(lambda: re.search(r"http://127\.0\.0\.1:[1-9]\d*", log.read_text()) or process.poll(), SECONDS)
        assert process.poll() is None, log.read_text()
        yield found.group()
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(SECONDS)


def ask(url: str, path: str, method: str = "GET") -> str | None:
    """The answer, over a connection of its own so that each may reach another process; nothing while there is none."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.read().decode() if response.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def events_of(server: Served, run_id: str) -> list[dict[str, Any]]:
    reply = server.get("/api/run/events", flow="checkout", run_id=run_id)
    return list(reply.json["events"]) if reply.status == 200 else []


def told(events: list[dict[str, Any]]) -> list[str]:
    return sorted(f"{event['stepKey']}:{event['status']}" for event in events)


SHOP = """
import httpx
from fastapi import FastAPI, HTTPException, Request
app = FastAPI()
@app.post("/checkout")
async def checkout(amount: int, request: Request) -> str:
    async with httpx.AsyncClient(base_url=str(request.base_url)) as client:
        answer = await client.post("/charges", json={"amount": amount})
    if answer.status_code != 200:
        raise HTTPException(402, "declined")
    return "bought"
@app.post("/charges")
async def charge(body: dict) -> str:
    if body["amount"] > 100:
        raise HTTPException(402, "declined")
    return "charged"
"""
RULES = """{"version": 1, "rules": [
  {"kind": "server", "name": "POST /checkout", "flow": "checkout", "step": "take-order", "run": ["trace"]},
  {"kind": "client", "flow": "checkout", "step": "charge-card", "run": ["parent"]}
]}"""


def test_a_service_with_nothing_but_a_file_of_rules_shows_its_runs(tmp_path: Path) -> None:
    (tmp_path / ".failpath").mkdir()
    (tmp_path / ".failpath" / "spans.json").write_text(RULES)
    served = start(tmp_path / "server")
    env = {"FAILPATH_DEV_ENDPOINT": served.url}
    try:
        with serving(tmp_path, env, str(BIN / "uvicorn"), "shop:app", "--port", "0", source=("shop.py", SHOP)) as url:
            until(lambda: ask(url, "/checkout?amount=1", "POST"), SECONDS)
            assert ask(url, "/checkout?amount=1000", "POST") is None
        runs = served.get("/api/runs", flow="checkout").json["runs"]
        assert [(run["status"], run["steps"].get("success"), run["steps"].get("error")) for run in runs] == [
            ("error", 1, 1),
            ("success", 2, 0),
        ]
        assert runs[0]["firstError"]["stepKey"] == "charge-card"
        # And the doctor, called as the service is, finds all of it.
        done = subprocess.run(
            instrumented(str(BIN / "failpath-otel"), "doctor", "--app", "shop:app", "--json"),
            cwd=tmp_path,
            env=settings(env),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        found = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
        assert (done.returncode, found["processors"]["level"], found["destination"]["level"]) == (0, "ok", "ok"), found
        assert found["rules"]["what"].endswith("spans.json: 2 rules")
        assert found["sampler"]["level"] == "warning"  # of the default one, since runs come from spans
    finally:
        served.end()


def test_spans_of_an_untouched_service_are_reported(server: Served, tmp_path: Path) -> None:
    assert run('pay("charge", "plain")', tmp_path, {"FAILPATH_DEV_ENDPOINT": server.url}) == ""
    events = events_of(server, "plain")
    assert told(events) == ["charge:running", "charge:success"]
    assert {event["service"] for event in events} == {"shop"}


def test_a_provider_that_the_service_itself_sets_is_met_when_it_comes(tmp_path: Path) -> None:
    # No configurator, as without opentelemetry-distro.
    said = run(LATE_PROVIDER, tmp_path, {"FAILPATH_EXPORTER": "console", "OTEL_PYTHON_CONFIGURATOR": "none-of-these"})
    assert said.count("checkout/charge") == 2


def test_a_client_in_code_takes_over_while_it_is_open_and_nothing_comes_twice(tmp_path: Path) -> None:
    said = run(OWN_CLIENT, tmp_path, {"FAILPATH_EXPORTER": "console"})
    lines = [line.split(maxsplit=2)[2] for line in said.splitlines() if "checkout/" in line]
    told = sorted((line.split()[1].removeprefix("checkout/"), "the client" in line) for line in lines if "success" in line)
    assert told == [("after", False), ("before", False), ("own", True), ("with", True)], said
    assert len(lines) == 8


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, ""),
        ({"FAILPATH_EXPORTER": "console", "FAILPATH_ENABLED": "false"}, ""),
        ({"FAILPATH_EXPORTER": "cosnole"}, "the service goes on without it: FAILPATH_EXPORTER must be one of"),
    ],
    ids=["nothing is set", "switched off", "an option that cannot be used"],
)
def test_without_use_it_is_silent_and_what_cannot_be_used_is_said_once(
    env: dict[str, str], expected: str, tmp_path: Path
) -> None:
    said = run('pay("charge"); print("served")', tmp_path, env).removesuffix("served\n")
    assert expected in said
    assert said.count("\n") == bool(expected)


GUNICORN = [str(BIN / "gunicorn"), "service:app", "-w", "2", "-b", "127.0.0.1:0"]
# gevent takes the place of threads in the worker, long after the client was made. Greenlets hold no worker, so one is enough.
GEVENT = [str(BIN / "gunicorn"), "service:wsgi", "-w", "1", "-b", "127.0.0.1:0", "-k", "gevent"]
UVICORN = [str(BIN / "uvicorn"), "service:app", "--port", "0"]
# By default its parent kills a worker that does not answer within 5 s, as while it starts on a busy machine.
PATIENCE = ["--timeout-worker-healthcheck", "60"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("command", "processes_in_all"),
    [
        ([*GUNICORN, "-k", "uvicorn_worker.UvicornWorker"], 2),
        ([*GUNICORN, "-k", "uvicorn_worker.UvicornWorker", "--preload"], 2),
        (GEVENT, 1),
        (UVICORN, 1),
        ([*UVICORN, "--workers", "2", *PATIENCE], 2),
    ],
    ids=["gunicorn", "gunicorn --preload", "gunicorn with gevent", "uvicorn", "uvicorn --workers"],
)
def test_every_worker_process_reports_each_step_once(
    server: Served, tmp_path: Path, command: list[str], processes_in_all: int
) -> None:
    pytest.importorskip("uvicorn_worker")
    pytest.importorskip("gevent")
    name = tmp_path.name
    with serving(tmp_path, {"FAILPATH_DEV_ENDPOINT": server.url}, *command) as url:
        until(lambda: ask(url, f"/pay?run={name}-first"), SECONDS)
        processes: dict[str, str | None] = {}

        def all_answered() -> bool:
            names = [f"{name}-{len(processes) + number}" for number in range(8)]
            processes.update(zip(names, pool.map(lambda run_id: ask(url, f"/pay?run={run_id}"), names), strict=True))
            return len(set(processes.values()) - {None}) == processes_in_all

        with ThreadPoolExecutor(8) as pool:
            until(all_answered, SECONDS)
        # What was told in the last moment is sent as well, though uvicorn ends by the signal, past Python's exit handlers.
        processes[f"{name}-last"] = ask(url, f"/pay?run={name}-last")
        assert processes[f"{name}-last"]
    for run_id in (run_id for run_id, process in processes.items() if process is not None):
        assert told(events_of(server, run_id)) == ["charge:running", "charge:success"], run_id
