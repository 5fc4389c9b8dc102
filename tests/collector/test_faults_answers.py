"""What a Collector does with each answer of the server: what it tries again arrives once, what it drops is counted."""

from __future__ import annotations

import contextlib
import email.utils
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.collector import Collector, StartCollector
from support.http_sink import Answer, always, reset
from support.otlp_backend import Gate
from support.otlp_bodies import PROTOBUF, step, traces
from support.served import Client, until
from support.shop import assert_exact, run_ids, shop

# Tried again soon, so that the tests are quick. How often and for how long is the configuration's own.
QUICKLY = ("--config", "yaml:exporters::otlp_http/failpath::retry_on_failure: {initial_interval: 50ms, max_interval: 200ms}")
STRICT = ("--config", "yaml:processors::filter/failpath::error_mode: propagate")
FAILPATH = "otlp_http/failpath"
KEPT = (429, 502, 503, 504)
LOST = (400, 401, 403, 404, 405, 408, 413, 415, 421, 500, 501, 505, 507)
ASKED_SECONDS = 2


@pytest.fixture
def collector(start_collector: StartCollector, gated: Gate, tmp_path: Path) -> Collector:
    env = {"FAILPATH_ENDPOINT": gated.url, "BACKEND_FILE": str(tmp_path / "backend.jsonl")}
    return start_collector("quickstart.yaml", env, arguments=(*QUICKLY, *STRICT))


def failed(collector: Collector) -> float:
    """How many spans the Collector gave up."""
    return collector.metric("exporter_send_failed_spans", exporter=FAILPATH)


def taken_after(gated: Gate, collector: Collector, api: Client, refusal: Answer, times: int = 3) -> None:
    """Runs made while the gate answers so, and runs made after it opened, are known as done."""
    gated.refuse = refusal
    with shop(spans_to=collector.endpoint) as service:
        service.checkouts(8)
        service.flush()
        until(lambda: gated.refused >= times)
        assert run_ids(api) <= set(service.done)
        gated.refuse = None
        service.checkouts(4)
        service.flush()
        assert_exact(api, service, events=service.attempts)
    assert failed(collector) == 0
    assert "Dropping data" not in collector.said(1000)


@pytest.mark.parametrize("status", KEPT)
def test_what_is_refused_with_429_502_503_or_504_is_tried_again_and_arrives_once(
    status: int, gated: Gate, collector: Collector, api: Client
) -> None:
    taken_after(gated, collector, api, always(status))


def test_what_a_reset_connection_carried_arrives_once(gated: Gate, collector: Collector, api: Client) -> None:
    taken_after(gated, collector, api, reset)


def test_what_the_server_stored_without_being_heard_is_sent_again_and_is_there_once(
    gated: Gate, collector: Collector, api: Client
) -> None:
    taken_after(gated, collector, api, gated.unanswered)
    assert api.get("/api/intake").json["duplicates"] > 0


def test_what_waits_while_connections_are_refused_arrives_once(gated: Gate, collector: Collector, api: Client) -> None:
    with shop(spans_to=collector.endpoint) as service:
        service.checkouts(4)
        service.flush()
        assert_exact(api, service)
        gated.close()
        service.checkouts(8)
        service.flush()
        until(lambda: "connection refused" in collector.said())
        gated.open()
        assert_exact(api, service, events=service.attempts)
    assert failed(collector) == 0


def test_what_a_connection_broke_off_in_the_middle_of_is_tried_again_and_arrives_once(
    gated: Gate, collector: Collector, api: Client
) -> None:
    gated.close()
    with broken_off(gated.sink.port, after_bytes=600, times=3) as cut, shop(spans_to=collector.endpoint) as service:
        service.checkouts(40)
        service.flush()
        assert cut.wait(20), "the Collector did not try three times"
        gated.open()
        assert_exact(api, service, events=service.attempts)
    assert failed(collector) == 0


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(status: int, as_date: bool, gated: Gate, collector: Collector, api: Client) -> None:
    # A date has whole seconds, so it may be up to a second nearer than what it says.
    least = ASKED_SECONDS - (1 if as_date else 0)

    def refuse_once(request: object, connection: socket.socket) -> None:
        gated.refuse = None
        wanted = email.utils.formatdate(time.time() + ASKED_SECONDS, usegmt=True) if as_date else str(ASKED_SECONDS)
        always(status, Retry_After=wanted)(request, connection)  # type: ignore[arg-type]

    gated.refuse = refuse_once
    with shop(spans_to=collector.endpoint) as service:
        service.checkouts(2)
        service.flush()
        assert_exact(api, service, events=service.attempts)
    assert len(gated.arrivals) == 2
    # A busy machine only makes it later: the first arrival was noted before the answer that it had.
    assert gated.arrivals[1] - gated.arrivals[0] >= least - 0.1


@pytest.mark.parametrize("status", LOST)
def test_what_is_refused_with_any_other_status_such_as_500_is_lost_and_counted_and_later_data_arrives(
    status: int, gated: Gate, collector: Collector, api: Client
) -> None:
    gated.refuse = always(status)
    with shop(spans_to=collector.endpoint) as lost, shop(spans_to=collector.endpoint) as later:
        lost.checkouts(4)
        lost.flush()
        until(lambda: failed(collector) == lost.attempts)
        gated.refuse = None
        later.checkouts(4)
        later.flush()
        assert_exact(api, later, events=later.attempts)
        assert run_ids(api) == set(later.done)
    assert failed(collector) == lost.attempts
    assert gated.refused == 1
    assert f"HTTP Status Code {status}" in collector.said(1000)


def test_a_redirect_is_followed_as_a_get_which_loses_what_was_sent(gated: Gate, collector: Collector, api: Client) -> None:
    gated.refuse = always(301, Location=f"{api.url}/v1/traces")
    with shop(spans_to=collector.endpoint) as service:
        service.checkout()
        service.flush()
        until(lambda: failed(collector) == service.attempts)
    assert "HTTP Status Code 405" in collector.said(1000)
    assert run_ids(api) == set()


def test_what_the_server_takes_in_part_is_not_sent_again_and_the_refused_span_is_in_the_log(
    gated: Gate, collector: Collector, api: Client
) -> None:
    body = traces(step("good"), step("bad", **{"failpath.step.status": "weird"}), step("fine")).SerializeToString()
    with contextlib.closing(Client(collector.endpoint)) as sender:
        assert sender.post("/v1/traces", body, {"Content-Type": PROTOBUF}).status == 200
    until(lambda: "Partial success response" in collector.said(1000))
    assert run_ids(api) == {"good", "fine"}
    assert "failpath.step.status must be one of" in collector.said(1000)
    assert '"dropped_spans": 1' in collector.said(1000)
    assert gated.passed == 1
    assert failed(collector) == 0, "the Collector counts a partial success as sent"


def test_large_spans_that_wait_together_are_divided_into_requests_that_the_server_takes(
    gated: Gate, collector: Collector, api: Client
) -> None:
    metadata = {"failpath.metadata.note": random.Random(413).randbytes(9000).hex()}
    with contextlib.closing(Client(collector.endpoint)) as sender:
        for part in range(3):
            steps = [step(f"run-{part}-{number}", **metadata) for number in range(500)]
            body = traces(*steps, trace_id=bytes([part + 1]) * 16).SerializeToString()
            assert sender.post("/v1/traces", body, {"Content-Type": PROTOBUF}).status == 200
    until(lambda: len(run_ids(api)) == 1500, 30)
    assert gated.passed > 6, "27 MB go in more requests than came in"
    assert failed(collector) == 0


@contextlib.contextmanager
def broken_off(port: int, after_bytes: int, times: int) -> Iterator[threading.Event]:
    """Resets so many connections to a port, each when some bytes came; then the port is free and the event set."""
    done = threading.Event()
    listener = socket.create_server(("127.0.0.1", port))

    def serve() -> None:
        with listener:
            for _ in range(times):
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(10)
                    received = 0
                    while received < after_bytes:
                        received += len(connection.recv(after_bytes - received))
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        done.set()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield done
    finally:
        listener.close()
        thread.join(20)
