"""The bridge: what comes in goes on, and is acknowledged when the server behind has taken it."""

from __future__ import annotations

import gzip
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from support.bridges import at_once, bridge_to, forward_state, gated, naming, refusing
from support.http_sink import HttpSink, always, hang, in_turn, reply, reset
from support.otlp_bodies import END_NS, JSON, PROTOBUF, START_NS, json_span, json_traces, logs, step, traces
from support.served import Client, Reply, event, until

from failpath_otel.server.forward import forwarder

LOG = "failpath_otel.server"
KEY = "fp_project_1"


@pytest.fixture(params=["with a store", "without a store"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "runs.db" if request.param == "with a store" else None


@pytest.fixture
def bridge(sink: HttpSink, db: Path | None) -> Iterator[Client]:
    with bridge_to(sink.url, db, KEY) as client:
        yield client


@pytest.fixture
def client_of(bridge: Client) -> Iterator[Callable[[], Client]]:
    """Makes further clients of the bridge, each with a connection of its own."""
    with ExitStack() as stack:

        def make() -> Client:
            client = Client(bridge.url)
            stack.callback(client.close)
            return client

        yield make


def sent_on(sink: HttpSink) -> set[str]:
    return {str(sent["eventId"]) for sent in sink.events}


def ids(*events: dict[str, Any]) -> set[str]:
    return {str(one["eventId"]) for one in events}


# What goes on


def test_events_go_on_as_they_came_with_the_project_key(bridge, sink):
    error = {"name": "CardDeclined", "message": "insufficient funds", "stack": "at x"}
    full = event(
        "full",
        "charge-card",
        "error",
        startedAt="2026-03-01T12:00:00.000000Z",
        durationMs=1000.0,
        metadata={"route": "/checkout", "nested": {"list": [1, None, "ü"]}},
        error=error,
        traceId="ab" * 16,
        spanId="cd" * 8,
        service="shop",
    )
    skipped = event("full", "receipt", "skipped", skipReason="not paid")
    assert bridge.send_events(full, skipped).json == {"accepted": 2, "duplicates": 0, "rejected": []}
    assert sink.events == [full, skipped]
    (request,) = sink.requests
    assert request.line == "POST /v1/events HTTP/1.1"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["user-agent"].startswith("failpath-otel-bridge/")


def spans(run_id: str, kind: str) -> bytes:
    if kind == JSON:
        return json.dumps(json_traces(json_span(step(run_id), spanId="12" * 8))).encode()
    return traces(step(run_id), span_id=b"\x12" * 8).SerializeToString()


@pytest.mark.parametrize("kind", [JSON, PROTOBUF])
def test_spans_go_on_as_events(bridge, sink, kind):
    reply = bridge.post("/v1/traces", gzip.compress(spans("r", kind)), {"Content-Type": kind, "Content-Encoding": "gzip"})
    assert (reply.status, reply.headers["Content-Type"], reply.body) == (200, kind, b"{}" if kind == JSON else b"")
    (sent,) = sink.events
    assert (sent["flowKey"], sent["runId"], sent["stepKey"], sent["status"]) == ("checkout", "r", "charge-card", "success")
    assert (sent["startedAt"], sent["durationMs"], sent["service"]) == ("2026-03-01T12:00:00.000000Z", 1500.0, "shop")


def test_log_records_go_on_as_events(bridge, sink):
    running = logs(step("r", **{"failpath.step.status": "running"})).SerializeToString()
    ended = logs(
        step("r", **{"failpath.step.status": "success", "failpath.step.started_at": START_NS}), time_unix_nano=END_NS
    ).SerializeToString()
    for body in (running, ended):
        assert bridge.post("/v1/logs", body, {"Content-Type": PROTOBUF}).status == 200
    assert [sent["status"] for sent in sink.events] == ["running", "success"]


def test_what_is_no_event_goes_nowhere_and_is_no_reason_to_wait(bridge, sink):
    sink.stop()
    foreign = traces({"http.route": "/"}).SerializeToString()
    assert bridge.post("/v1/traces", foreign, {"Content-Type": PROTOBUF}).status == 200
    answer = bridge.send_events({"eventId": "bad"})
    assert (answer.status, [item["eventId"] for item in answer.json["rejected"]]) == (202, ["bad"])
    counts = bridge.get("/api/intake").json
    assert (counts["unmapped"], counts["rejected"], counts["forward"]["heldBack"]) == (1, 1, 0)


def test_an_event_that_comes_again_goes_on_again(bridge, sink, db):
    """The first time it may have got as far as the store, and no further."""
    first, second = event("a"), event("b")
    assert bridge.send_events(first, first).json == {"accepted": 1, "duplicates": 1, "rejected": []}
    known = 1 if db else 0
    assert bridge.send_events(first, second).json == {"accepted": 2 - known, "duplicates": known, "rejected": []}
    assert sink.arrivals == {first["eventId"]: 2, second["eventId"]: 1}


def test_one_event_id_in_two_runs_goes_on_for_each(bridge, sink):
    same = [event(run, eventId="same") for run in ("one", "other")]
    assert bridge.send_events(*same).json == {"accepted": 2, "duplicates": 0, "rejected": []}
    assert {sent["runId"] for request in sink.requests for sent in request.events} == {"one", "other"}


def test_requests_that_come_together_go_on_together(bridge, sink, client_of):
    gate = threading.Event()
    sink.answer = gated(gate, lambda request, connection: connection.sendall(reply(202, sink.store(request))))
    senders = [partial(client_of().send_events, event(f"r-{n}"), event(f"r-{n}", "b")) for n in range(20)]

    def open_later() -> Reply:
        until(lambda: forward_state(watching)["waiting"] == 40)
        gate.set()
        return watching.get("/healthz")

    watching = client_of()
    replies = at_once([*senders, open_later])[:-1]
    assert [reply.status for reply in replies] == [202] * 20
    assert len(sink.stored) == 40
    assert len(sink.requests) <= forwarder.CONNECTIONS + 2


def test_a_large_request_goes_on_in_several(bridge, sink):
    many = [event(f"r-{n}", metadata={"text": "x" * 1000}) for n in range(3000)]
    assert bridge.send_events(*many).json["accepted"] == 3000
    assert len(sink.stored) == 3000
    assert max(len(request.events) for request in sink.requests) <= 2048
    assert len(sink.requests) >= 3


# What the server behind refuses


def test_events_that_upstream_refuses_by_name_are_rejected_with_its_reasons(bridge, sink):
    sink.answer = naming(sink, "bad")
    good, bad = event("good"), event("bad")
    answer = bridge.send_events(good, bad, {"eventId": "worse"})
    assert answer.status == 202
    assert (answer.json["accepted"], answer.json["duplicates"]) == (1, 0)
    assert {item["eventId"]: item["reason"] for item in answer.json["rejected"]} == {
        "worse": "Object missing required field `flowKey`",
        bad["eventId"]: "no run bad",
    }
    assert sent_on(sink) == ids(good)
    assert (forward_state(bridge)["forwarded"], forward_state(bridge)["rejected"]) == (1, 1)


def test_reasons_without_end_are_cut(bridge, sink):
    rejected = [{"eventId": event("bad")["eventId"], "reason": "x" * 100_000}]
    sink.answer = always(202, json.dumps({"rejected": rejected}).encode())
    (item,) = bridge.send_events(event("bad")).json["rejected"]
    assert item["reason"].startswith("xxx")
    assert len(item["reason"].encode()) <= 1024


def test_refused_spans_are_a_partial_success_with_their_exact_number(bridge, sink):
    sink.answer = naming(sink, "bad")
    body = traces(step("good"), step("bad"), step("bad", "other"), step("fine")).SerializeToString()
    answer = bridge.post("/v1/traces", body, {"Content-Type": PROTOBUF})
    partial_success = ExportTraceServiceResponse.FromString(answer.body).partial_success
    assert (answer.status, partial_success.rejected_spans) == (200, 2)
    assert "no run bad" in partial_success.error_message
    assert {sent["runId"] for sent in sink.events} == {"good", "fine"}


@pytest.mark.parametrize("status", [400, 409, 422])
def test_a_refused_batch_is_divided_until_the_bad_events_stand_alone(bridge, sink, status):
    sink.answer = refusing(sink, status, "bad-1", "bad-2")
    batch = [event(run) for run in ("a", "bad-1", "b", "c", "d", "bad-2", "e")]
    answer = bridge.send_events(*batch).json
    assert answer["accepted"] == 5
    assert {item["eventId"] for item in answer["rejected"]} == ids(batch[1], batch[5])
    assert all(f"answered {status}: cannot read ['bad-" in item["reason"] for item in answer["rejected"]), answer
    assert sent_on(sink) == ids(*batch) - ids(batch[1], batch[5])


def test_one_senders_bad_events_take_no_other_senders_down(bridge, sink, client_of):
    gate = threading.Event()
    sink.answer = gated(gate, refusing(sink, 400, "bad"))
    batches = [[event("bad" if n == 7 else f"good-{n}", f"s-{n}-{k}") for k in range(3)] for n in range(16)]

    def open_later() -> Reply:
        until(lambda: forward_state(watching)["waiting"] == 48)
        gate.set()
        return watching.get("/healthz")

    watching = client_of()
    replies = at_once([*(partial(client_of().send_events, *batch) for batch in batches), open_later])[:-1]
    assert [reply.status for reply in replies] == [202] * 16
    assert [len(reply.json["rejected"]) for reply in replies] == [3 if n == 7 else 0 for n in range(16)]
    assert sent_on(sink) == ids(*(one for n, batch in enumerate(batches) if n != 7 for one in batch))


def test_a_refusal_that_names_no_event_of_the_batch_is_looked_into(bridge, sink):
    """An answer with an empty id, say, which tells only that something was refused."""

    def answer(request, connection):
        good = [sent for sent in request.events if sent["runId"] != "bad"]
        if len(good) == len(request.events):
            connection.sendall(reply(202, sink.store(request)))
        else:
            said = {"accepted": len(good), "rejected": [{"eventId": "", "reason": "one is bad"}]}
            connection.sendall(reply(202, json.dumps(said).encode()))

    sink.answer = answer
    batch = [event("a"), event("bad"), event("b")]
    said = bridge.send_events(*batch).json
    assert said["rejected"] == [{"eventId": batch[1]["eventId"], "reason": "one is bad"}]
    assert sent_on(sink) == ids(batch[0], batch[2])


def test_413_makes_smaller_parts_and_rejects_what_is_too_large_by_itself(bridge, sink):
    def answer(request, connection):
        if len(gzip.decompress(request.body) if "content-encoding" in request.headers else request.body) > 20_000:
            connection.sendall(reply(413))
        else:
            connection.sendall(reply(202, sink.store(request)))

    sink.answer = answer
    fine = [event(f"r-{n}", metadata={"text": "x" * 2000}) for n in range(30)]
    huge = event("huge", metadata={"text": "x" * 10_000, "more": "y" * 12_000})
    said = bridge.send_events(*fine, huge).json
    assert [item["eventId"] for item in said["rejected"]] == [huge["eventId"]]
    assert "too large" in said["rejected"][0]["reason"]
    assert sent_on(sink) == ids(*fine)


def test_rejections_are_logged_once_not_for_each_batch(bridge, sink, caplog):
    sink.answer = naming(sink, "bad")
    with caplog.at_level(logging.WARNING, LOG):
        for n in range(5):
            bridge.send_events(event("bad", f"s-{n}"))
    assert [record.message for record in caplog.records if "refuses events" in record.message] == [
        f"{sink.url} refuses events, and their senders get its reason: 1 events rejected; the first, bad-s-0-end: no run bad",
    ]


# When the server behind cannot


@pytest.mark.parametrize(
    "faults",
    [
        [always(503)],
        [always(429, Retry_After="1")],
        [always(500), always(502), reset],
        [always(408), always(504)],
    ],
    ids=["503", "429", "500, 502, reset", "408, 504"],
)
def test_a_short_break_is_waited_out_and_the_sender_sees_nothing_of_it(bridge, sink, faults, caplog):
    sink.answer = in_turn(sink, *faults)
    with caplog.at_level(logging.WARNING, LOG):
        assert bridge.send_events(event("r")).status == 202
    assert len(sink.requests) == len(faults) + 1
    assert caplog.records == []
    state = forward_state(bridge)
    assert (state["forwarded"], state["heldBack"], state["failingSince"]) == (1, 0, None)
    assert state["lastError"] is not None


@pytest.mark.parametrize(("path", "kind"), [("/v1/events", JSON), ("/v1/traces", JSON), ("/v1/traces", PROTOBUF)])
def test_a_retry_after_that_is_longer_than_events_wait_is_passed_on_and_kept(bridge, sink, path, kind):
    sink.answer = always(503, Retry_After="77")
    body = json.dumps({"events": [event("r")]}).encode() if path == "/v1/events" else spans("r", kind)
    for _ in range(3):
        answer = bridge.post(path, body, {"Content-Type": kind})
        assert (answer.status, answer.headers["Retry-After"]) in {(503, "77"), (503, "76")}
        assert b"does not take them now" in answer.body
    assert len(sink.requests) == 1  # it asked not to be called
    state = forward_state(bridge)
    assert (state["forwarded"], state["heldBack"], state["waiting"]) == (0, 3, 0)
    assert state["failingSince"]
    assert state["lastError"].startswith(f"{sink.url}/v1/events answered 503")


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405, 415, 421])
def test_a_wrong_key_or_place_rejects_nothing_and_leaves_everything_with_the_senders(bridge, sink, status, caplog):
    sink.answer = always(status, b'{"detail":"no"}', Location="http://127.0.0.1:9/")
    with caplog.at_level(logging.WARNING, LOG):
        for _ in range(3):
            answer = bridge.send_events(event("r"))
            assert answer.status == 503
            assert 55 <= int(answer.headers["Retry-After"]) <= 60
    assert [len(request.events) for request in sink.requests] == [1, 0]  # an empty batch asks whether it is the event
    (record,) = caplog.records
    assert (
        "--forward-key or FAILPATH_PROJECT_KEY" in record.message
        if status in (401, 403)
        else "check --forward-to" in record.message
    )
    assert forward_state(bridge)["rejected"] == 0


def test_health_does_not_go_by_the_server_behind(bridge, sink):
    sink.answer = always(503, Retry_After="60")
    assert bridge.send_events(event("r")).status == 503
    assert bridge.get("/healthz").json == {"status": "ok"}


def test_senders_are_held_off_while_it_is_down_and_taken_when_it_is_back(bridge, sink, caplog):
    sink.stop()
    with caplog.at_level(logging.WARNING, LOG):
        answer = bridge.send_events(event("r"))
        assert answer.status == 503
        assert 1 <= int(answer.headers["Retry-After"]) <= 5
        sink.start()
        until(lambda: bridge.send_events(event("r")).status == 202, 20)
        assert bridge.send_events(event("r2")).status == 202
    assert sent_on(sink) == ids(event("r"), event("r2"))
    down, back = [record.message for record in caplog.records]
    assert down.startswith(f"events do not go on to {sink.url} and stay with their senders, next try in ")
    assert "Connection refused" in down
    assert back.startswith(f"events go on to {sink.url} again, after ")
    assert forward_state(bridge)["failingSince"] is None


def test_an_upstream_that_does_not_answer_holds_nobody_for_long(bridge, sink, monkeypatch):
    monkeypatch.setattr(forwarder, "REQUEST_SECONDS", 0.3)
    sink.answer = hang(sink)
    assert bridge.send_events(event("r")).status == 503
    sink.answer = None
    sink.released.set()
    until(lambda: bridge.send_events(event("r")).status == 202, 20)
    assert sent_on(sink) == ids(event("r"))


def test_with_a_store_events_are_seen_at_once_while_the_server_behind_is_down(sink, tmp_path):
    sink.answer = always(503, Retry_After="60")
    with bridge_to(sink.url, tmp_path / "runs.db") as bridge:
        for accepted in (1, 0):
            assert bridge.send_events(event("seen")).status == 503
            assert bridge.get("/api/run", flow="checkout", run_id="seen").status == 200
            counts = bridge.get("/api/intake").json
            assert (counts["accepted"], counts["duplicates"]) == (1, 1 - accepted)


def test_an_event_that_upstream_refuses_is_counted_once_in_the_answer(sink, tmp_path):
    sink.answer = naming(sink, "bad")
    with bridge_to(sink.url, tmp_path / "runs.db") as bridge:
        for accepted, duplicates in ((2, 0), (0, 2)):
            said = bridge.send_events(event("a"), event("bad"), event("b")).json
            assert (said["accepted"], said["duplicates"], len(said["rejected"])) == (accepted, duplicates, 1)
