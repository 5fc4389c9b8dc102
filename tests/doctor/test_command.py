"""`failpath-otel doctor`: real processes, real sockets."""

from __future__ import annotations

import email.utils
import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from support.golden import PROBE, PROBE_ANSWER
from support.http_sink import always, hang, http_sink, reply
from support.served import command, environment, event, in_thread

from failpath_otel.exporters import HttpExporter
from failpath_otel.server.settings import Settings

SECRET = "fp_project_topsecret"
SHOP = """
import sys
print("noise of the application")
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from failpath_otel import FailpathClient
trace.set_tracer_provider(TracerProvider())
def create():
    return FailpathClient({key!r}, endpoint={endpoint!r})
"""


def doctor(folder: Path, *arguments: str, **env: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """The exit code, and the findings by what was looked at."""
    done = said(folder, "--json", *arguments, **env)
    assert done.returncode in (0, 1), done.stderr
    answer = json.loads(done.stdout)
    found: dict[str, list[dict[str, str]]] = {}
    for finding in answer["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    assert (answer["version"], done.returncode) == (1, int(answer["counts"]["problem"] > 0))
    return done.returncode, found


def said(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command("doctor", *arguments), cwd=folder, env=environment(env), capture_output=True, text=True, timeout=60, check=False
    )
    assert SECRET not in done.stdout + done.stderr
    assert "noise" not in done.stdout + done.stderr
    return done


def test_all_is_well_beside_a_server_and_nothing_is_stored_there(tmp_path: Path) -> None:
    (tmp_path / ".failpath").mkdir()
    (tmp_path / ".failpath" / "flows.json").write_text('{"flows": [{"slug": "s", "nodes": [{"sdkStepKey": "k"}]}]}')
    (tmp_path / "shop.py").write_text(SHOP.format(key="", endpoint="").replace("'', endpoint=''", ""))
    with in_thread(Settings(db=str(tmp_path / "runs.db"), port=0, ingest_key=SECRET)) as server:
        env = {"FAILPATH_DEV_ENDPOINT": server.url, "FAILPATH_PROJECT_KEY": SECRET}
        code, found = doctor(tmp_path, "--app", "shop:create()", **env)
        assert code == 0, found
        assert {name: one[0]["level"] for name, one in found.items()} == {
            "versions": "ok",
            "opentelemetry": "ok",
            "options": "ok",
            "project-key": "ok",
            "flows": "ok",
            "rules": "ok",
            "provider": "ok",
            "processors": "ok",
            "exporters": "warning",
            "sampler": "ok",
            "processes": "ok",
            "destination": "ok",
            "clock": "ok",
            "intake": "ok",
            "counts": "ok",
        }
        assert server.get("/api/flows").json == {"flows": []}
        assert server.get("/api/intake").json["accepted"] == 0
        assert "nothing has arrived" in found["intake"][0]["what"]
        code, found = doctor(tmp_path, "--app", "shop:create()", **{**env, "FAILPATH_PROJECT_KEY": "wrong"})
        assert (code, found["destination"][0]["level"]) == (1, "problem")
        assert "answered 401" in found["destination"][0]["what"]


def test_a_client_in_code_is_asked_for_its_own_destination(tmp_path: Path) -> None:
    with http_sink() as sink:
        (tmp_path / "shop.py").write_text(SHOP.format(key=SECRET, endpoint=sink.url))
        code, found = doctor(tmp_path, "--app", "shop:create()")
        assert (code, found["destination"][0]["level"]) == (0, "ok"), found
        asked, looked = sink.requests
        assert (looked.line, "authorization" in looked.headers) == ("GET /api/intake HTTP/1.1", False)
        assert asked.headers["authorization"] == f"Bearer {SECRET}"
        assert json.loads(asked.body) == {"events": []}


def test_what_is_wrong_is_text_with_reason_and_fix(tmp_path: Path) -> None:
    done = said(tmp_path, FAILPATH_MAX_QUEUE_SIZE="many", FAILPATH_PROJECT_KEY=SECRET)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("problem"))
    assert lines[at] == "problem  options: FAILPATH_MAX_QUEUE_SIZE must be a whole number, got 'many'"
    assert lines[at + 1].startswith("         why: ")
    assert lines[at + 2].startswith("         fix: ")
    assert lines[-1].endswith("warnings")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import nowhere", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import os; os._exit(7)", "ended with 7"),
    ],
    ids=["import error", "exit", "hard exit"],
)
def test_an_application_that_cannot_be_imported_is_a_finding(source: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(source)
    code, found = doctor(tmp_path, "--app", "shop:app", FAILPATH_EXPORTER="console")
    assert (code, found["app"][0]["level"]) == (1, "problem")
    assert why in found["app"][0]["what"]


def test_an_application_and_a_server_that_hang_take_no_more_than_the_time(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "import os, pathlib, threading; pathlib.Path('pid').write_text(str(os.getpid())); threading.Event().wait()"
    )
    with http_sink() as sink:
        sink.answer = hang(sink)
        # Both hang for longer than `said` waits for the doctor.
        code, found = doctor(tmp_path, "--app", "shop", "--timeout", "3", FAILPATH_DEV_ENDPOINT=sink.url)
        assert not sink.released.is_set()
    assert code == 1
    assert "not done within 2 s" in found["app"][0]["what"]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert found["destination"][0]["level"] == "problem"


@pytest.mark.parametrize(
    ("status", "body", "said_of_it"),
    [
        (200, b"<html>", "without a count of accepted events"),
        (404, b"{}", "answered 404"),
        (503, b"{}", "answered 503"),
        (403, b"{}", "check the project key"),
    ],
)
def test_whatever_answers_is_told_from_a_server_that_takes_events(
    status: int, body: bytes, said_of_it: str, tmp_path: Path
) -> None:
    with http_sink() as sink:
        sink.answer = always(status, body)
        code, found = doctor(tmp_path, FAILPATH_DEV_ENDPOINT=sink.url)
    assert (code, found["destination"][0]["level"]) == (1, "problem")
    assert said_of_it in found["destination"][0]["what"]


def test_what_a_server_took_and_refused_is_told(tmp_path: Path) -> None:
    with in_thread(Settings(db=str(tmp_path / "runs.db"), port=0)) as server:
        server.send_events(event("1"), event("2"))
        _, found = doctor(tmp_path, FAILPATH_DEV_ENDPOINT=server.url)
        assert found["intake"][0]["what"].startswith("2 events have arrived at the server since ")
        server.send_events(event("1", status="done"))
        _, found = doctor(tmp_path, FAILPATH_DEV_ENDPOINT=server.url)
        assert (found["intake"][0]["level"], "has refused 1 times" in found["intake"][0]["what"]) == ("warning", True)


@pytest.mark.parametrize(("seconds", "said_of_it"), [(3600, "behind"), (-3600, "ahead of")])
def test_a_clock_that_is_wrong_is_told_by_the_servers(seconds: int, said_of_it: str, tmp_path: Path) -> None:
    with http_sink() as sink:
        date = email.utils.formatdate(time.time() + seconds, usegmt=True)
        sink.answer = always(202, PROBE_ANSWER, Date=date)
        code, found = doctor(tmp_path, FAILPATH_DEV_ENDPOINT=sink.url)
    assert (code, found["clock"][0]["level"]) == (0, "warning")
    assert f"{said_of_it} the server" in found["clock"][0]["what"]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_events_by_otlp_are_asked_for_where_they_go(protocol: str, tmp_path: Path) -> None:
    with in_thread(Settings(db=str(tmp_path / "runs.db"), port=0, grpc_port=0)) as server:
        endpoint = f"http://{server.grpc}" if protocol == "grpc" else server.url
        env = {"FAILPATH_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        code, found = doctor(tmp_path, **env, OTEL_EXPORTER_OTLP_HEADERS=f"authorization={SECRET}")
        assert (code, found["destination"][0]["level"]) == (0, "ok"), found


def test_a_wrong_call_is_told_from_a_problem(tmp_path: Path) -> None:
    done = said(tmp_path, "--app", "no module")
    assert (done.returncode, "module:attribute" in done.stderr) == (2, True)


def test_the_question_and_its_answer_are_the_golden_ones(tmp_path: Path) -> None:
    with http_sink() as sink:
        sink.answer = lambda request, connection: connection.sendall(reply(202, PROBE_ANSWER))
        HttpExporter(sink.url).probe(timeout_millis=10_000)
        assert json.loads(sink.requests[0].body) == json.loads(PROBE)
    with in_thread(Settings(db=str(tmp_path / "runs.db"), port=0)) as server:
        answer = server.post("/v1/events", PROBE)
        assert (answer.status, answer.json) == (202, json.loads(PROBE_ANSWER))
