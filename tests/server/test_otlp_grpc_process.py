"""OTLP/gRPC of a server as a process: its start, its end, and the exporters of the Python SDK as its senders."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from support.endings import assert_ends_in_time
from support.otlp_bodies import step, traces
from support.otlp_calls import CODES, TRACES, answer_of, call, channel, refusal
from support.served import Served, until
from support.shop import assert_exact, shop

from failpath_otel.cli.group import cli

Start = Callable[..., Served]


def _message(run_id: str, trace: int = 1) -> bytes:
    return traces(step(run_id), trace_id=trace.to_bytes(16, "big")).SerializeToString()


def test_the_second_line_tells_the_real_port(start_server: Start) -> None:
    server = start_server("--grpc-port", "0")
    assert server.said[1] == f"OTLP/gRPC is taken on {server.grpc}"
    assert call(server.grpc, _message("told")).code is CODES.OK


@pytest.mark.parametrize("host", ["localhost", "::1"])
def test_it_listens_where_http_does(start_server: Start, host: str) -> None:
    server = start_server("--host", host, "--grpc-port", "0")
    assert server.grpc.rpartition(":")[0] == {"localhost": "127.0.0.1", "::1": "[::1]"}[host]
    assert call(server.grpc, _message("there")).code is CODES.OK


@pytest.mark.parametrize("taken", ["http", "grpc"])
def test_a_port_in_use_is_a_clear_error(start_server: Start, tmp_path: Path, taken: str) -> None:
    server = start_server("--grpc-port", "0")
    port = (server.url if taken == "http" else server.grpc).rpartition(":")[2]
    arguments = ["serve", "--port", "0", "--grpc-port", port, "--db", str(tmp_path / "other.db")]
    done = CliRunner().invoke(cli, arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert "give another --grpc-port" in done.stderr
    assert call(server.grpc, _message("still")).code is CODES.OK


def test_a_signal_ends_it_in_time_with_idle_and_half_sent_calls(start_server: Start, beside: Served) -> None:
    server = start_server("--grpc-port", "0")
    release = threading.Event()

    def never() -> Iterator[bytes]:
        release.wait(120)
        yield b""

    with channel(server.grpc) as idle, channel(server.grpc) as busy:
        assert answer_of(idle.unary_unary(TRACES), _message("idle")).code is CODES.OK
        half = [busy.stream_unary(TRACES).future(never(), timeout=120) for _ in range(3)]
        assert answer_of(busy.unary_unary(TRACES), b"").code is CODES.OK
        assert_ends_in_time(server, beside)
        answers = [refusal(call) for call in half if call.exception(timeout=30)]
        assert {(answer.code, answer.retry_after) for answer in answers} == {(CODES.UNAVAILABLE, 1.0)}
        release.set()
    assert server.log.read_text() == ""


def test_a_locked_database_does_not_hold_up_the_end_and_nothing_of_it_is_acknowledged(
    start_server: Start, beside: Served, tmp_path: Path
) -> None:
    server = start_server("--grpc-port", "0")
    with closing(sqlite3.connect(tmp_path / "runs.db", isolation_level=None)) as lock, channel(server.grpc) as opened:
        lock.execute("BEGIN IMMEDIATE")
        held = opened.unary_unary(TRACES).future(_message("locked"), timeout=120)
        assert answer_of(opened.unary_unary(TRACES), b"").code is CODES.OK
        assert_ends_in_time(server, beside)
        assert held.exception(timeout=30) is not None
        assert held.code() in (CODES.UNAVAILABLE, CODES.CANCELLED)  # either may be sent again
    assert start_server().get("/api/run", flow="checkout", run_id="locked").status == 404


def test_what_is_acknowledged_while_it_stops_is_stored(start_server: Start, beside: Served) -> None:
    """Senders hammer the server through its end; each answer OK must be found again."""
    server = start_server("--grpc-port", "0")
    acknowledged: list[int] = []
    odd: list[Any] = []
    under_way = threading.Event()

    def send(sender: int) -> None:
        with channel(server.grpc) as opened:
            export = opened.unary_unary(TRACES)
            for number in range(10_000):
                trace = 1 + sender * 10_000 + number
                answer = answer_of(export, _message(f"stop-{trace}", trace))
                if answer.code is not CODES.OK:
                    if answer.code not in (CODES.UNAVAILABLE, CODES.CANCELLED):
                        odd.append(answer)
                    return
                acknowledged.append(trace)
                if len(acknowledged) > 50:
                    under_way.set()

    senders = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for sender in senders:
        sender.start()
    assert under_way.wait(60)
    assert_ends_in_time(server, beside)
    for sender in senders:
        sender.join(timeout=60)
    assert odd == []
    again = start_server("--grpc-port", "0")
    before = again.get("/api/intake").json
    with channel(again.grpc) as opened:
        for trace in acknowledged:
            assert answer_of(opened.unary_unary(TRACES), _message(f"stop-{trace}", trace)).code is CODES.OK
    after = again.get("/api/intake").json
    assert [after[name] - before[name] for name in ("accepted", "duplicates")] == [0, len(acknowledged)]


def test_a_server_that_is_killed_and_started_again_is_found_by_its_senders(start_server: Start) -> None:
    server = start_server("--grpc-port", "0")
    port = server.grpc.rpartition(":")[2]
    with channel(server.grpc) as opened:
        assert answer_of(opened.unary_unary(TRACES), _message("before", 1)).code is CODES.OK
        server.process.kill()
        server.process.wait(timeout=60)
        until(lambda: answer_of(opened.unary_unary(TRACES), _message("between", 2)).code is CODES.UNAVAILABLE)
        again = start_server("--grpc-port", port)
        until(lambda: answer_of(opened.unary_unary(TRACES), _message("after", 3), wait_for_ready=True).code is CODES.OK)
    for run_id in ("before", "after"):
        assert again.get("/api/run", flow="checkout", run_id=run_id).status == 200


def test_the_sdks_own_exporter_sends_spans_with_the_key(start_server: Start) -> None:
    server = start_server("--grpc-port", "0", "--ingest-key", "s3nder")
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = OTLPSpanExporter(
        endpoint=f"http://{server.grpc}", headers=(("authorization", "Bearer s3nder"),), insecure=True, timeout=20
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("test").start_as_current_span("charge", attributes=step("by-sdk")):
        pass
    provider.shutdown()
    assert server.get("/api/run", flow="checkout", run_id="by-sdk").json["status"] == "success"


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_our_own_client_sends_events_by_it(start_server: Start, monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    server = start_server("--grpc-port", "0", "--ingest-key", "s3nder")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{server.grpc}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3nder")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
    with shop(exporter="otlp") as service:
        service.checkouts(12)
        service.client.flush()
        stats = service.client.stats()
        assert (stats.sent, stats.pending, stats.dropped) == (service.events, 0, {})
        assert_exact(server, service, events=service.events)


def test_our_own_client_divides_what_is_too_large_for_one_message(start_server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start_server("--grpc-port", "0")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{server.grpc}")
    with shop(exporter="otlp", send_timeout_millis=20_000) as service:
        for number in range(120):
            run = service.client.run("checkout", run_id=f"large-{number}")
            run.step("charge-card", lambda: None, metadata={f"m{n}": "x" * 16_000 for n in range(4)})
        service.client.flush()
        stats = service.client.stats()
        assert (stats.sent, stats.pending, stats.dropped) == (240, 0, {})
    assert server.get("/api/intake").json["accepted"] == 240
