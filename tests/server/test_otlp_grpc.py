"""OTLP/gRPC: calls, one by one, at a real port."""

from __future__ import annotations

import gzip
import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.http_sink import HttpSink
from support.otlp_bodies import END_NS, PROTOBUF, START_NS, add_span, logs, step, traces
from support.otlp_calls import CODES, DEFLATE, GZIP, LOGS, TRACES, answer_of, call, channel, refusal
from support.served import Client, in_thread, until

from failpath_otel.cli.forwarding import destination_of
from failpath_otel.errors import ConfigError
from failpath_otel.server.intake import grpc as grpc_intake
from failpath_otel.server.settings import Settings

METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
KEY = "s3nder"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server in a thread that takes gRPC. Tests keep apart by their run ids."""
    with in_thread(Settings(db=str(tmp_path_factory.mktemp("grpc") / "runs.db"), port=0, grpc_port=0)) as client:
        yield client


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The same, with an ingest key."""
    db = tmp_path_factory.mktemp("locked") / "runs.db"
    with in_thread(Settings(db=str(db), port=0, grpc_port=0, ingest_key=KEY)) as client:
        yield client


def events_of(api: Client, run_id: str) -> list[Any]:
    found: list[Any] = api.get("/api/run/events", flow="checkout", run_id=run_id).json["events"]
    return found


def span_by(trace: int, *runs: str) -> Any:
    return traces(*map(step, runs), trace_id=trace.to_bytes(16, "big"))


@pytest.mark.parametrize("compression", [None, GZIP])
def test_spans_and_records_are_taken(api, compression):
    run_id = f"taken-{compression}"
    trace = (100 + (compression is None)).to_bytes(16, "big")
    record = logs(step(run_id, **{"failpath.step.status": "running"}), trace_id=trace)
    for method, message in ((LOGS, record), (TRACES, traces(step(run_id), trace_id=trace))):
        answer = call(api.grpc, message, method, compression=compression)
        assert (answer.code, answer.body) == (CODES.OK, b"")
    assert [event["status"] for event in events_of(api, run_id)] == ["running", "success"]


@pytest.mark.parametrize("method", [TRACES, LOGS])
@pytest.mark.parametrize("compression", [None, GZIP])
def test_an_empty_request_is_a_success(api, method, compression):
    answer = call(api.grpc, b"", method, compression=compression)
    assert (answer.code, answer.body) == (CODES.OK, b"")


def test_a_message_that_was_compressed_apart_from_its_neighbour_is_understood(api):
    # gRPC's senders leave small messages as they are, so the coding of a call does not tell that of its message.
    with channel(api.grpc, GZIP) as opened:
        for length in (0, 5000):
            message = traces(step("mixed", note="x" * length)).SerializeToString()
            assert answer_of(opened.unary_unary(TRACES), message).code is CODES.OK


def test_bad_items_are_counted_and_take_no_good_one_down(api):
    request = span_by(3, "partly")
    add_span(request, step("partly", "bad"), trace_id=bytes(16))
    add_span(request, step(""), trace_id=b"\1" * 16)
    answer = call(api.grpc, request)
    assert (answer.code, answer.partial) == (CODES.OK, (2, "trace_id is all zero; failpath.run.id is empty"))
    ended = {"failpath.step.status": "success"}
    records = logs(step("partly", "logged", **ended), step("", **ended), step("", **ended), trace_id=b"\3" * 16)
    assert call(api.grpc, records, LOGS).partial == (2, "failpath.run.id is empty")
    assert len(events_of(api, "partly")) == 2


def test_one_step_by_grpc_and_by_http_is_one_event(api):
    body = span_by(4, "both").SerializeToString()
    before = api.get("/api/intake").json
    assert call(api.grpc, body).code is CODES.OK
    assert api.post("/v1/traces", body, {"Content-Type": PROTOBUF}).status == 200
    assert call(api.grpc, body, compression=GZIP).partial == (0, "")
    after = api.get("/api/intake").json
    assert [after[name] - before[name] for name in ("accepted", "duplicates", "rejected")] == [1, 2, 0]


def test_foreign_and_half_named_spans_are_counted(api):
    before = api.get("/api/intake").json
    assert call(api.grpc, traces({"a": 1}, {"failpath.run.id": "x"})).partial == (0, "")
    after = api.get("/api/intake").json
    assert [after[name] - before[name] for name in ("unmapped", "incomplete")] == [1, 1]


@pytest.mark.parametrize("method", [TRACES, LOGS])
@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"\xff", "no OTLP protobuf message"),
        (span_by(5, "cut").SerializeToString()[:-1], "no OTLP protobuf message"),
        (b"\x1f\x8bno gzip", "gzip body is corrupt"),
        (gzip.compress(b"x" * 100, mtime=0)[:-4], "gzip body is cut short"),
    ],
)
def test_what_cannot_be_read_is_an_invalid_argument_and_not_to_be_sent_again(api, method, message, words):
    answer = call(api.grpc, message, method)
    assert (answer.code, answer.retry_after) == (CODES.INVALID_ARGUMENT, None)
    assert words in answer.details
    assert (answer.status.code, answer.status.message) == (3, answer.details)


def test_a_call_without_a_message_is_an_invalid_argument(api):
    with channel(api.grpc) as opened:
        answer = answer_of(opened.stream_unary(TRACES), iter(()))
    assert (answer.code, answer.details) == (CODES.INVALID_ARGUMENT, "The call carries no message.")


def _padded(length: int) -> bytes:
    """A request with one step span, filled up to about so many bytes by a field that nobody knows."""
    return traces(step("large"), trace_id=b"\6" * 16).SerializeToString() + b"\x7a" + _varint(length) + bytes(length)


def _varint(value: int) -> bytes:
    written = b""
    while value > 127:
        written += bytes([value & 127 | 128])
        value >>= 7
    return written + bytes([value])


@pytest.mark.parametrize(
    ("length", "compression", "code"),
    [
        (4_190_000, None, CODES.OK),
        (4_200_000, None, CODES.RESOURCE_EXHAUSTED),
        (16_700_000, GZIP, CODES.OK),
        (16_800_000, GZIP, CODES.RESOURCE_EXHAUSTED),
        (200_000_000, GZIP, CODES.RESOURCE_EXHAUSTED),
    ],
)
def test_the_size_is_bounded_as_over_http_before_and_after_inflating(api, length, compression, code):
    answer = call(api.grpc, _padded(length), compression=compression)
    assert (answer.code, answer.retry_after) == (code, None)
    assert code is CODES.OK or "larger than max" in answer.details


def test_another_compression_is_refused_by_the_code_that_grpc_has_for_it(api):
    answer = call(api.grpc, span_by(7, "deflated"), compression=DEFLATE)
    assert answer.code is CODES.UNIMPLEMENTED
    assert "deflate" in answer.details


@pytest.mark.parametrize("method", [METRICS, TRACES.lower(), "/x/Export"])
def test_what_is_not_taken_here_is_unimplemented(api, method):
    assert call(api.grpc, b"", method).code is CODES.UNIMPLEMENTED


@pytest.mark.parametrize("key", [None, "", "another", f"{KEY} {KEY}"])
@pytest.mark.parametrize("method", [TRACES, LOGS])
def test_senders_without_the_ingest_key_are_refused(locked, method, key):
    answer = call(locked.grpc, span_by(8, "stranger"), method, key=key)
    assert (answer.code, answer.status.code, answer.retry_after) == (CODES.UNAUTHENTICATED, 16, None)
    assert "authorization: Bearer <key>" in answer.details


def test_senders_with_the_ingest_key_are_served(locked):
    assert call(locked.grpc, span_by(9, "known"), key=KEY).code is CODES.OK
    with channel(locked.grpc) as opened:
        shown = (("authorization", f"bearer {KEY}"),)
        assert answer_of(opened.unary_unary(LOGS), b"", metadata=shown).code is CODES.OK


def test_who_may_not_send_is_answered_before_anything_is_read(locked):
    release = threading.Event()

    def never() -> Iterator[bytes]:
        release.wait(30)
        yield b""

    with channel(locked.grpc) as opened:
        assert answer_of(opened.stream_unary(TRACES), never()).code is CODES.UNAUTHENTICATED
        release.set()


def test_a_sender_that_stalls_is_told_to_send_again(api, monkeypatch):
    monkeypatch.setattr(grpc_intake, "READ_TIMEOUT_SECONDS", 0.2)
    release = threading.Event()

    def late() -> Iterator[bytes]:
        release.wait(30)
        yield b""

    with channel(api.grpc) as opened:
        answer = answer_of(opened.stream_unary(TRACES), late())
        release.set()
    assert (answer.code, answer.retry_after, answer.status.code) == (CODES.UNAVAILABLE, 1.0, 14)


def test_a_fault_of_ours_is_internal_tells_nothing_of_the_inside_and_spoils_nothing(api, monkeypatch, caplog):
    async def broken(*_: object) -> bytes:
        raise ZeroDivisionError("inside")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "failpath_otel.server"):
        patch.setattr("failpath_otel.server.intake.http.Intake.take", broken)
        answer = call(api.grpc, span_by(10, "fault"))
    assert (answer.code, answer.details) == (CODES.INTERNAL, "The server met an error of its own; its log says more.")
    assert "ZeroDivisionError: inside" in caplog.text
    assert call(api.grpc, span_by(10, "fault")).code is CODES.OK


def test_a_store_that_cannot_be_written_is_unavailable_and_says_when_to_come_again(tmp_path):
    with in_thread(Settings(db=str(tmp_path / "runs.db"), port=0, grpc_port=0)) as api:
        lock = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        answer = call(api.grpc, span_by(11, "later"))
        lock.close()
        assert (answer.code, answer.status.code) == (CODES.UNAVAILABLE, 14)
        assert answer.retry_after is not None
        assert answer.retry_after >= 1
        assert call(api.grpc, span_by(11, "later")).code is CODES.OK
        assert len(events_of(api, "later")) == 1


@pytest.mark.parametrize("keeps", [True, False])
def test_calls_go_on_to_another_server_with_and_without_a_store(tmp_path, sink: HttpSink, keeps):
    db = str(tmp_path / "runs.db") if keeps else None
    with in_thread(Settings(db=db, port=0, grpc_port=0, forward=destination_of(sink.url, None))) as bridge:
        assert call(bridge.grpc, span_by(12, "on")).partial == (0, "")
        assert [sent["runId"] for sent in sink.events] == ["on"]
        sink.stop()
        answer = call(bridge.grpc, span_by(13, "held"))
        assert answer.code is CODES.UNAVAILABLE
        assert answer.retry_after is not None
        assert answer.retry_after >= 1
        sink.start()
        until(lambda: call(bridge.grpc, span_by(13, "held")).code is CODES.OK, 30)
        assert sink.arrivals.keys() == sink.stored.keys()
        assert sorted(sent["runId"] for sent in sink.events) == ["held", "on"]


def test_calls_that_are_cancelled_leave_the_server_well(tmp_path, capfd):
    """They wait for a store that is locked; what of them was taken is stored when it is not, and counted once."""
    with in_thread(Settings(db=str(tmp_path / "runs.db"), port=0, grpc_port=0)) as api:
        lock = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        with channel(api.grpc) as opened:
            waiting = [
                opened.unary_unary(TRACES).future(span_by(1000 + n, f"gone-{n}").SerializeToString(), timeout=20)
                for n in range(40)
            ]
            assert api.get("/healthz").status in (200, 503)
            for held in waiting:
                held.cancel()
            assert {refusal(held).code for held in waiting if held.cancelled()} == {CODES.CANCELLED}
            lock.close()
            request = span_by(2000, "after")
            until(lambda: answer_of(opened.unary_unary(TRACES), request.SerializeToString()).code is CODES.OK, 30)
        for n in range(40):
            assert call(api.grpc, span_by(1000 + n, f"gone-{n}")).code is CODES.OK
            assert len(events_of(api, f"gone-{n}")) == 1
    assert "Traceback" not in capfd.readouterr().err


def test_many_senders_at_once_by_both_ways_lose_and_repeat_nothing(api):
    calls_each, senders = 40, 8
    before = api.get("/api/intake").json
    wrong: list[object] = []

    def send(sender: int) -> None:
        client = Client(api.url)
        with channel(api.grpc, GZIP if sender % 2 else None) as opened:
            export = opened.unary_unary(TRACES)
            for number in range(calls_each):
                body = span_by(10_000 + sender * 1000 + number, f"many-{sender}", f"many-{sender}").SerializeToString()
                if number % 4:
                    answer = answer_of(export, body)
                    good = answer.code is CODES.OK and answer.body == b""
                else:
                    good = client.post("/v1/traces", body, {"Content-Type": PROTOBUF}).status == 200
                if not good:
                    wrong.append((sender, number))
        client.close()

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert wrong == []
    after = api.get("/api/intake").json
    sent = calls_each * senders * 2
    assert [after[name] - before[name] for name in ("accepted", "duplicates", "rejected")] == [sent, 0, 0]


def test_a_running_step_and_its_outcome_keep_their_times(api):
    record = logs(step("times", **{"failpath.step.status": "running"}), trace_id=b"\x0e" * 16, time_unix_nano=START_NS)
    assert call(api.grpc, record, LOGS).code is CODES.OK
    assert call(api.grpc, traces(step("times"), trace_id=b"\x0e" * 16)).code is CODES.OK
    assert events_of(api, "times")[1]["durationMs"] == (END_NS - START_NS) / 1e6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"grpc_port": 65536}, "--grpc-port must be from 0 to 65535, got 65536"),
        ({"grpc_port": -1}, "--grpc-port must be from 0 to 65535, got -1"),
        ({"grpc_port": 4600}, "--grpc-port must be another one than --port, got 4600 for both"),
        ({"grpc_port": 4317, "host": "0.0.0.0"}, "--token and --ingest-key"),
    ],
)
def test_settings_that_cannot_be_used_are_named(options, words):
    with pytest.raises(ConfigError, match=words):
        Settings(db="x", **options)


def test_without_the_option_grpc_is_not_even_loaded(tmp_path: Path):
    probe = (
        "import sys; from failpath_otel.server.serve import build, listen; from failpath_otel.server.settings import Settings\n"
        "with listen('127.0.0.1', 0) as listener: build(Settings(db=sys.argv[1]), listener, print)\n"
        "print('grpc' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, str(tmp_path / "x.db")], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False\n"


def test_the_page_of_intake_knows_calls_and_refusals_too(locked):
    call(locked.grpc, span_by(901, "noticed"), TRACES, key=KEY)
    last = locked.get("/api/intake").json["lastRequest"]
    assert (last["path"], last["status"], last["items"]) == (TRACES, 200, 1)
    assert last["agent"].startswith("grpc-python")
    call(locked.grpc, span_by(902, "refused"), TRACES)
    intake = locked.get("/api/intake").json
    assert intake["lastRequest"]["status"] == 401
    assert any("Senders must show the ingest key" in one["sample"] for one in intake["refusals"])
