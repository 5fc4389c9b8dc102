"""``failpath-otel serve`` as a process: its start, its options, its end."""

from __future__ import annotations

import contextvars
import http.client
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
from click.testing import CliRunner
from opentelemetry import context
from support.endings import assert_ends_in_time
from support.served import Client, Served, command, environment, event, until

from failpath_otel.cli.group import cli
from failpath_otel.server import serve as serve_module
from failpath_otel.version import VERSION

PATIENT = """
from failpath_otel.server import serve
from failpath_otel.server.store import database
serve.GRACE_SECONDS, database.BUSY_TIMEOUT_MILLIS = 600, 600_000
"""
"""What a process runs first in which a request that waits for a locked database holds up the end until the last moment."""
MORE_PATIENT = f"{PATIENT}serve.LAST_MOMENT_SECONDS = 600"
"""And past it."""


def _refused(*arguments: str) -> str:
    """What a start that must fail says: one message on stderr and exit code 2."""
    done = CliRunner().invoke(cli, ["serve", *arguments])
    assert (done.exit_code, done.stdout) == (2, ""), done
    assert isinstance(done.exception, SystemExit)
    assert done.stderr.startswith("Error: ")
    return done.stderr


def _socket(server: Client) -> socket.socket:
    parts = urlsplit(server.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def test_the_first_line_tells_the_real_port_of_a_server_that_answers(server):
    assert server.said[0] == f"failpath-otel is listening on {server.url}"
    assert server.get("/healthz").json == {"status": "ok"}


def test_runs_outlive_the_server(start_server):
    first = start_server()
    first.send_events(event("kept"))
    assert first.stop() == 0
    second = start_server()
    assert second.get("/api/run", flow="checkout", run_id="kept").status == 200


def test_flows_and_database_are_found_upward(tmp_path, start_server):
    folder = tmp_path / ".failpath"
    folder.mkdir()
    (folder / "flows.json").write_text('{"flows":[{"slug":"found","nodes":[{"sdkStepKey":"a"}]}]}')
    below = tmp_path / "src" / "deep"
    below.mkdir(parents=True)
    process = subprocess.Popen(command("serve", "--port", "0"), stdout=subprocess.PIPE, text=True, cwd=below, env=environment())
    server = Served("", process=process)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(3)]
        server.url = lines[0].rpartition(" ")[2]
        assert [flow["slug"] for flow in server.get("/api/flows").json["flows"]] == ["found"]
        assert server.stop() == 0
    finally:
        server.end()
    assert lines[1:] == [f"runs are kept in {folder / 'failpath.db'}", f"1 flows declared in {folder / 'flows.json'}"]
    assert (folder / "failpath.db").stat().st_size > 0


def test_every_option_has_an_environment_variable(tmp_path, start_server, sink):
    flows = tmp_path / "f.json"
    flows.write_text('{"flows":[{"slug":"given","nodes":[]}]}')
    rules = tmp_path / "r.json"
    rules.write_text('{"version":1,"rules":[{"name":"pay","flow":"checkout","step":"charge-card","run":["trace"]}]}')
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("bridge").private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    env = {
        "FAILPATH_HOST": "localhost",
        "FAILPATH_CERTIFICATE": str(tmp_path / "ca.pem"),
        "FAILPATH_CLIENT_CERTIFICATE": str(tmp_path / "own.pem"),
        "FAILPATH_CLIENT_KEY": str(tmp_path / "own.pem"),
        "FAILPATH_GRPC_PORT": "0",
        "FAILPATH_DB": str(tmp_path / "given.db"),
        "FAILPATH_FLOWS": str(flows),
        "FAILPATH_RULES": str(rules),
        "FAILPATH_STUCK_AFTER": "0.05",
        "FAILPATH_RETAIN": "4w",
        "FAILPATH_MAX_SIZE": "1GB",
        "FAILPATH_TRACE_URL": "https://traces.example/{trace_id}?span={span_id}",
        "FAILPATH_FORWARD_TO": sink.url,
        "FAILPATH_PROJECT_KEY": "fp_project_1",
        "FAILPATH_TOKEN": "t0ken",
        "FAILPATH_INGEST_KEY": "k3y",
        "FAILPATH_ALLOWED_HOSTS": "a.example, b.example:4600 c.example",
    }
    server = start_server("--db", env["FAILPATH_DB"], env=env)
    for name in ("a.example", "b.example", "c.example:1"):
        reply = server.get("/api/flows", {"Authorization": "Bearer t0ken", "Host": name})
        assert [flow["slug"] for flow in reply.json["flows"]] == ["given"]
    server.headers = {"Authorization": "Bearer k3y"}
    assert server.send_events(event("env", status="running")).status == 202
    times = {"startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000001000000000"}
    pay = {"name": "pay", "traceId": "1" * 32, "spanId": "2" * 16, "kind": 1, **times}
    assert server.post("/v1/traces", {"resourceSpans": [{"scopeSpans": [{"spans": [pay]}]}]}).json == {}
    server.headers = {"Authorization": "Bearer t0ken"}
    assert server.get("/api/run", flow="checkout", run_id="1" * 32).status == 200
    until(lambda: server.get("/api/run", flow="checkout", run_id="env").json["stuck"])
    about = server.get("/api/about").json
    assert (about["traceUrl"], about["stuckAfterSeconds"]) == (env["FAILPATH_TRACE_URL"], 0.05)
    assert (tmp_path / "given.db").exists()
    with socket.create_connection(server.grpc.rsplit(":", 1), timeout=10):
        pass
    declared = {option.envvar for option in cli.get_command(None, "serve").params}  # type: ignore[arg-type,union-attr]
    assert declared == {*env, "FAILPATH_PORT", "FAILPATH_NO_STORE"}
    assert [request.headers["authorization"] for request in sink.requests] == ["Bearer fp_project_1"] * 2


def test_a_server_without_a_store_is_had_by_the_environment_alone(tmp_path, start_server, sink):
    server = start_server(env={"FAILPATH_NO_STORE": "true", "FAILPATH_FORWARD_TO": sink.url, "FAILPATH_DB": ""})
    assert server.send_events(event("on")).status == 202
    assert [sent["runId"] for sent in sink.events] == ["on"]
    assert list(tmp_path.rglob("*.db")) == []


def test_an_option_wins_over_its_environment_variable(start_server, tmp_path):
    server = start_server("--ingest-key", "argument", env={"FAILPATH_INGEST_KEY": "environment"})
    server.headers = {"Authorization": "Bearer argument"}
    assert server.send_events(event("r")).status == 202


def test_an_empty_key_is_none(start_server):
    server = start_server(env={"FAILPATH_TOKEN": "", "FAILPATH_INGEST_KEY": "", "FAILPATH_ALLOWED_HOSTS": ""})
    assert server.send_events(event("r")).status == 202


def test_a_port_in_use_is_a_clear_error(server, tmp_path):
    port = server.url.rpartition(":")[2]
    assert f"cannot listen on 127.0.0.1 port {port}" in _refused("--port", port, "--db", str(tmp_path / "other.db"))


def test_a_database_in_use_is_a_clear_error(server, tmp_path):
    assert "in use by another" in _refused("--port", "0", "--db", str(tmp_path / "runs.db"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--host", "0.0.0.0"), "--token and --ingest-key"),
        (("--host", "192.0.2.1", "--token", "t", "--ingest-key", "k"), "192.0.2.1"),
        (("--host", "no.such.host.invalid", "--token", "t", "--ingest-key", "k"), "no.such.host.invalid"),
        (("--stuck-after", "-1"), "--stuck-after"),
        (("--flows", "missing.json"), "missing.json"),
        (("--flows", "broken.json"), "broken.json"),
        (("--db", "a-file/runs.db"), "a-file/runs.db"),
        (("--db", "broken.json"), "broken.json"),
        (("--db", "mysql://x/y"), "mysql"),
    ],
)
def test_what_cannot_be_used_is_named_without_a_traceback(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{" * 5000)
    (tmp_path / "a-file").write_text("x")
    db = () if "--db" in arguments else ("--db", str(tmp_path / "runs.db"))
    assert words in _refused("--port", "0", *db, *arguments)


@pytest.mark.parametrize("module", ["click", "uvicorn"])
def test_without_the_extra_the_command_says_what_to_install(module, tmp_path):
    code = f"import sys; sys.modules[{module!r}] = None; sys.argv[1:] = ['serve']; from failpath_otel.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'failpath-otel[server]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_and_version_name_what_there_is():
    runner = CliRunner()
    shown = runner.invoke(cli, ["--help"]).output
    assert "serve" in shown
    assert "demo" in shown
    assert runner.invoke(cli, ["--version"]).output == f"failpath-otel, version {VERSION}\n"
    assert runner.invoke(cli, ["nothing"]).exit_code == 2


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_time_with_every_kind_of_connection_open(server, beside, sig):
    server.get("/healthz")  # leaves a connection that is kept alive
    stream = server.connect()
    stream.request("GET", "/api/live")
    answer = stream.getresponse()
    assert answer.readline() == b"retry: 1000\n"
    body = json.dumps({"events": [event("half")]}).encode()
    half_head, half_body, silent = _socket(server), _socket(server), _socket(server)
    half_head.sendall(b"POST /v1/events HTTP/1.1\r\nHost: local")
    half_body.sendall(
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n" + body
    )
    assert server.get("/healthz").status == 200
    assert_ends_in_time(server, beside, sig)
    answer.read()  # the stream ends in order: an end that is missing would raise IncompleteRead
    assert b" 202 " not in half_body.recv(65536)
    for connection in (half_head, half_body, silent):
        connection.close()
    stream.close()
    assert server.log.read_text() == ""  # nothing had to be cancelled for taking too long


@contextmanager
def _waits_for_a_lock(server: Served, database: Path) -> Iterator[socket.socket]:
    """The connection of a sender whose event cannot be written, because another process holds the database for ever."""
    body = json.dumps({"events": [event("held")]}).encode()
    head = "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with closing(sqlite3.connect(database, isolation_level=None)) as lock, _socket(server) as connection:
        lock.execute("BEGIN IMMEDIATE")
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        for _ in range(5):  # these come after it; by the last it has long been taken
            assert server.get("/api/runs").status == 200
        server.close()
        yield connection


@pytest.mark.parametrize("before", ["", PATIENT], ids=["as it is", "by the last moment alone"])
def test_a_locked_database_does_not_hold_up_the_end_and_nothing_of_it_is_acknowledged(beside, tmp_path, start_server, before):
    server = start_server(before=before)
    with _waits_for_a_lock(server, tmp_path / "runs.db") as connection:
        assert_ends_in_time(server, beside)
        assert b" 202 " not in _last_words(connection)
    assert start_server().get("/api/run", flow="checkout", run_id="held").status == 404


def _last_words(connection: socket.socket) -> bytes:
    """What a process that has ended said over this connection; nothing where it was cut."""
    with suppress(ConnectionResetError):
        return connection.recv(65536)
    return b""


def test_a_second_signal_ends_it_at_once(start_server, tmp_path):
    server = start_server(before=MORE_PATIENT)
    with _waits_for_a_lock(server, tmp_path / "runs.db"):
        server.process.send_signal(signal.SIGTERM)
        until(lambda: _refuses(server))
        assert server.process.poll() is None
        assert server.stop() == 128 + signal.SIGTERM


def _refuses(server: Served) -> bool:
    try:
        _socket(server).close()
    except ConnectionRefusedError:
        return True
    return False


def test_what_is_acknowledged_while_it_stops_is_stored(server, beside, start_server):
    """Senders hammer the server through its end; each 202 must be found again."""
    acknowledged: list[str] = []
    under_way = threading.Event()

    def send(sender: int) -> None:
        client = Client(server.url)
        for number in range(10_000):
            run_id = f"stop-{sender}-{number}"
            try:
                reply = client.send_events(event(run_id))
            except (OSError, http.client.HTTPException):
                break
            if reply.status != 202:
                assert reply.status == 503
                break
            acknowledged.append(run_id)
            if len(acknowledged) > 50:
                under_way.set()
        client.close()

    senders = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for sender in senders:
        sender.start()
    assert under_way.wait(60)
    assert_ends_in_time(server, beside)
    for sender in senders:
        sender.join()
    again = start_server()
    receipt = again.send_events(*map(event, acknowledged)).json
    assert (receipt["accepted"], receipt["duplicates"]) == (0, len(acknowledged))


def test_a_store_that_cannot_be_written_is_a_503_that_says_when_to_come_again(server, tmp_path):
    lock = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    reply = server.send_events(event("later"))
    assert (reply.status, reply.headers["Content-Type"]) == (503, "application/problem+json")
    assert int(reply.headers["Retry-After"]) >= 1
    assert server.get("/healthz").status == 503
    assert server.get("/api/runs").status == 200  # readers never wait for the writer
    lock.close()
    assert server.send_events(event("later")).json["accepted"] == 1
    assert server.get("/healthz").status == 200


def test_its_own_requests_are_not_instrumented():
    def suppressed() -> tuple[object, object]:
        serve_module.untraced()
        # The key is OpenTelemetry's; its SDK and instrumentations have no other way to ask either.
        return context.get_value("suppress_instrumentation"), context.get_value(context._SUPPRESS_INSTRUMENTATION_KEY)

    assert contextvars.copy_context().run(suppressed) == (True, True)


def test_a_token_is_not_repeated_to_the_terminal(start_server):
    server = start_server("--token", "s3cret", "--ingest-key", "k3y")
    assert server.process.stdout is not None
    assert server.stop() == 0
    said = server.process.stdout.read() + server.log.read_text()
    assert "/?token=<token>" in said
    assert "s3cret" not in said


@pytest.mark.skipif(not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
def test_ipv6_loopback_is_served(start_server):
    server = start_server("--host", "::1")
    assert server.url.startswith("http://[::1]:")
    assert server.get("/healthz").status == 200


def test_a_sender_that_goes_away_leaves_the_server_well(server):
    for _ in range(20):
        connection = _socket(server)
        connection.sendall(
            b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        connection.close()
    assert server.get("/healthz").status == 200
    assert server.log.stat().st_size == 0
