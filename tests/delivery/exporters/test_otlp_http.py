"""OtlpExporter by HTTP, against a real socket that answers well and badly."""

from __future__ import annotations

import gzip
import logging
import socket
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from support.delivery import event, sooner_than
from support.http_sink import Answer, HttpSink, Request, always, hang, in_turn, reset

from failpath_otel import FailpathClient
from failpath_otel.errors import ExportError, RejectedError, RetryableError, UnauthorizedError
from failpath_otel.exporters.otlp import encoding
from failpath_otel.exporters.otlp.exporter import OtlpExporter

Client = Callable[..., FailpathClient]


def export(sink: HttpSink, *numbers: int, timeout_millis: int = 10_000, **variables: str) -> None:
    """One export on a connection of its own."""
    named = {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()}
    exporter = OtlpExporter({"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, **named}, user_agent="failpath-otel/9")
    try:
        exporter.export([event(number) for number in numbers or (1,)], timeout_millis=timeout_millis)
    finally:
        exporter.close()


def ids(body: bytes) -> list[str]:
    """The events in a body."""
    return [
        next(item.value.string_value for item in record.attributes if item.key == "failpath.event.id")
        for group in ExportLogsServiceRequest.FromString(body).resource_logs
        for scope in group.scope_logs
        for record in scope.log_records
    ]


def protobuf(status: int, message: Any, **headers: str) -> Answer:
    """Answers every request with this message."""

    def answer(request: Request, connection: socket.socket) -> None:
        body = message.SerializeToString()
        head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Content-Type: application/x-protobuf"]
        head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        connection.sendall("\r\n".join([*head, "", ""]).encode() + body)

    return answer


def partial(count: int, message: str = "no room") -> Answer:
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = count
    answer.partial_success.error_message = message
    return protobuf(200, answer)


TAKEN = always(200)


def test_the_request(sink: HttpSink) -> None:
    sink.answer = TAKEN
    export(sink, 1, 2)
    (request,) = sink.requests
    assert request.line == "POST /v1/logs HTTP/1.1"
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers["user-agent"] == "failpath-otel/9"
    assert "content-encoding" not in request.headers
    assert ids(request.body) == [event(1).event_id, event(2).event_id]


@pytest.mark.parametrize(("compression", "inflated"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)])
def test_bodies_are_compressed_as_the_variable_says(
    sink: HttpSink, compression: str, inflated: Callable[[bytes], bytes]
) -> None:
    sink.answer = TAKEN
    export(sink, COMPRESSION=compression)
    (request,) = sink.requests
    assert request.headers["content-encoding"] == compression
    assert ids(inflated(request.body)) == [event(1).event_id]


def test_the_connection_is_kept(sink: HttpSink) -> None:
    sink.answer = TAKEN
    exporter = OtlpExporter({"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url})
    for number in range(1, 4):
        exporter.export([event(number)], timeout_millis=5000)
    exporter.close()
    assert {request.connection for request in sink.requests} == {1}


# The answer


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff\xff no message"])
def test_a_200_is_a_success_whatever_its_body(sink: HttpSink, body: bytes) -> None:
    sink.answer = always(200, body)
    export(sink)
    sink.answer = lambda request, connection: connection.sendall(
        b"HTTP/1.1 200 X\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    export(sink)


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_answers_that_are_tried_again(sink: HttpSink, status: int) -> None:
    sink.answer = protobuf(status, Status(message="come again"), Retry_After="7")
    with pytest.raises(RetryableError, match=f"answered {status}: come again") as caught:
        export(sink)
    assert caught.value.retry_after == 7
    assert len(sink.requests) == 1


@pytest.mark.parametrize("status", [400, 404, 415, 418, 500, 501, 505])
def test_answers_that_refuse_the_batch(sink: HttpSink, status: int) -> None:
    sink.answer = protobuf(status, Status(message="not like that"))
    with pytest.raises(RejectedError, match=f"2 events rejected.*answered {status}: not like that") as caught:
        export(sink, 1, 2)
    assert set(caught.value.rejected) == {event(1).event_id, event(2).event_id}
    assert len(sink.requests) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_answers_that_stop_sending(sink: HttpSink, status: int) -> None:
    sink.answer = always(status, b"who are you?")
    with pytest.raises(UnauthorizedError, match=r"who are you\?; check OTEL_EXPORTER_OTLP_HEADERS"):
        export(sink)


def test_a_redirect_is_not_followed(sink: HttpSink) -> None:
    sink.answer = always(307, Location="http://elsewhere.test/")
    with pytest.raises(ExportError, match=r"redirects \(307\) to http://elsewhere.test/"):
        export(sink)


def test_a_request_that_is_refused_takes_no_other_of_the_batch_down(sink: HttpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "MAX_BODY_BYTES", 1)
    sink.answer = in_turn(sink, TAKEN, always(400), TAKEN)
    with pytest.raises(RejectedError) as caught:
        export(sink, 1, 2, 3)
    assert list(caught.value.rejected) == [event(2).event_id]
    assert len(sink.requests) == 3


def test_a_batch_that_is_too_large_is_divided(sink: HttpSink) -> None:
    taken: list[str] = []

    def answer(request: Request, connection: socket.socket) -> None:
        found = ids(request.body)
        if len(found) > 3 or event(5).event_id in found:
            always(413)(request, connection)
        else:
            taken.extend(found)
            TAKEN(request, connection)

    sink.answer = answer
    with pytest.raises(RejectedError) as caught:
        export(sink, *range(1, 21))
    assert list(caught.value.rejected) == [event(5).event_id]
    assert sorted(taken) == sorted(event(number).event_id for number in range(1, 21) if number != 5)


# Partial success: OTLP tells how many, not which.


def test_where_all_records_are_refused_all_events_are(sink: HttpSink) -> None:
    sink.answer = partial(2)
    with pytest.raises(RejectedError, match=r"2 events rejected.*no room"):
        export(sink, 1, 2)


def test_where_some_records_are_refused_a_warning_says_how_many(sink: HttpSink, caplog: pytest.LogCaptureFixture) -> None:
    sink.answer = partial(1)
    export(sink, 1, 2)
    assert "1 of 2 log records were refused, which ones is not known: no room" in caplog.text
    assert len(sink.requests) == 1


def test_a_warning_of_the_destination_is_passed_on(sink: HttpSink, caplog: pytest.LogCaptureFixture) -> None:
    sink.answer = partial(0, "deprecated")
    export(sink)
    assert "takes log records with a warning: deprecated" in caplog.text


# Time


@pytest.mark.parametrize("variables", [{}, {"TIMEOUT": "60"}])
def test_a_destination_that_hangs_is_left_at_the_timeout(sink: HttpSink, variables: dict[str, str]) -> None:
    sink.answer = hang(sink)
    started = time.monotonic()
    with sooner_than(30), pytest.raises(RetryableError, match="cannot be reached"):
        export(sink, timeout_millis=300, **variables)
    assert time.monotonic() - started > 0.25


@pytest.mark.parametrize("timeout_millis", [0, 60_000])
def test_the_variable_for_the_timeout_holds_where_it_is_less(sink: HttpSink, timeout_millis: int) -> None:
    sink.answer = hang(sink)
    started = time.monotonic()
    with sooner_than(30), pytest.raises(RetryableError):
        export(sink, timeout_millis=timeout_millis, TIMEOUT="0.3")
    assert time.monotonic() - started > 0.25


def test_the_timeout_is_for_the_batch_however_many_requests_it_takes(sink: HttpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "MAX_BODY_BYTES", 1)

    def answer(request: Request, connection: socket.socket) -> None:
        sink.released.wait(0.1)  # far less than the timeout, but 99 times it is far more
        TAKEN(request, connection)

    sink.answer = answer
    with pytest.raises(RetryableError):
        export(sink, *range(1, 100), timeout_millis=1500)
    assert 2 <= len(sink.requests) <= 16


def test_connection_faults_are_tried_again(sink: HttpSink) -> None:
    sink.answer = reset
    with pytest.raises(RetryableError, match="cannot be reached"):
        export(sink)
    sink.stop()
    with pytest.raises(RetryableError, match=r"cannot be reached: .*refused"):
        export(sink)


# Together with the client


@pytest.fixture
def otlp(sink: HttpSink, client: Client, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FailpathClient]:
    """Makes clients that send log records to the sink."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.url)
    return lambda **options: client(**{"exporter": "otlp", **options})


def test_a_poisoned_batch_is_counted_once_and_blocks_nothing(sink: HttpSink, otlp: Client) -> None:
    sink.answer = in_turn(sink, always(400), TAKEN)
    dropped: list[str] = []
    failpath = otlp(on_drop=lambda event, reason: dropped.append(reason))
    for _ in range(2):
        failpath.run("checkout").skip("pay")
        failpath.flush()
    assert (failpath.stats().sent, failpath.stats().dropped, dropped) == (1, {"rejected": 1}, ["rejected"])
    assert failpath.stats().retries == 0


def test_an_overload_is_waited_out(sink: HttpSink, otlp: Client) -> None:
    sink.answer = in_turn(sink, always(503, Retry_After="1"), always(429), always(504), TAKEN)
    failpath = otlp()
    started = time.monotonic()
    failpath.run("checkout").skip("pay")
    assert failpath.flush(20_000).sent == 1
    assert time.monotonic() - started >= 1
    assert failpath.stats().retries == 3
    assert len({tuple(ids(request.body)) for request in sink.requests}) == 1


@pytest.mark.parametrize("method", ["flush", "shutdown"])
def test_deadlines_hold_with_a_destination_that_hangs(sink: HttpSink, otlp: Client, method: str) -> None:
    sink.answer = hang(sink)
    failpath = otlp(send_timeout_millis=60_000)
    for number in range(1000):
        failpath.run("checkout").skip(f"step-{number}")
    with sooner_than(30):
        getattr(failpath, method)(400)
    assert len(sink.requests) <= 1


def test_the_project_key_goes_nowhere(sink: HttpSink, otlp: Client) -> None:
    sink.answer = TAKEN
    failpath = otlp(project_key="fp_secret", endpoint="https://elsewhere.test")
    failpath.run("checkout").skip("pay")
    assert failpath.flush().sent == 1
    assert "fp_secret" not in str(sink.requests)


def test_no_project_key_is_needed(sink: HttpSink, otlp: Client, caplog: pytest.LogCaptureFixture) -> None:
    sink.answer = TAKEN
    failpath = otlp()
    failpath.run("checkout").skip("pay")
    assert failpath.flush().sent == 1
    assert caplog.messages == []


def test_headers_of_the_environment_are_sent(sink: HttpSink, otlp: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    sink.answer = TAKEN
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc,x-tenant=t1")
    failpath = otlp()
    failpath.run("checkout").skip("pay")
    assert failpath.flush().sent == 1
    headers = sink.requests[0].headers
    assert (headers["authorization"], headers["x-tenant"]) == ("Bearer abc", "t1")
    assert headers["user-agent"].startswith("failpath-otel/")


def test_a_log_handler_that_takes_everything_is_not_fed_by_our_failures(sink: HttpSink, otlp: Client) -> None:
    """Such as OpenTelemetry's own, on the root logger of a service that exports its logs to the same place."""
    sink.answer = in_turn(sink, *[always(503)] * 3, TAKEN)
    seen: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    root, handler = logging.getLogger(), Handler()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        failpath = otlp()
        failpath.run("checkout").skip("pay")
        assert failpath.flush(20_000).sent == 1
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert len(sink.requests) == 4
    ours = [record for record in seen if record.name.startswith(("failpath_otel", "opentelemetry"))]
    assert [record.getMessage() for record in ours if "held" not in record.getMessage()] == []
    assert len(ours) == 1


@pytest.mark.parametrize("library", ["requests", "urllib3"])
def test_own_requests_are_not_traced(sink: HttpSink, otlp: Client, library: str) -> None:
    module = pytest.importorskip(f"opentelemetry.instrumentation.{library}")
    from support.tracing import Tracing

    sink.answer = TAKEN
    tracing = Tracing()
    instrumentor = {"requests": "RequestsInstrumentor", "urllib3": "URLLib3Instrumentor"}[library]
    instrumentation = getattr(module, instrumentor)()
    instrumentation.instrument(tracer_provider=tracing.provider)
    try:
        failpath = otlp(tracer_provider=tracing.provider)
        failpath.run("checkout", "r1").step("pay", lambda: None)
        assert failpath.flush().sent == 2
    finally:
        instrumentation.uninstrument()
    assert [span.name for span in tracing.spans] == ["checkout/pay"]
