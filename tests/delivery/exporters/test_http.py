"""HttpExporter against a real socket that answers well and badly."""

from __future__ import annotations

import email.utils
import gzip
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from support.delivery import event, until
from support.http_sink import HttpSink, Request, always, cut, in_turn, reply, reset, send

from failpath_otel import FailpathClient
from failpath_otel.errors import BatchRefusedError, ExportError, RejectedError, RetryableError, UnauthorizedError
from failpath_otel.events.wire import decode_event, split_events
from failpath_otel.exporters import HttpExporter

Client = Callable[..., FailpathClient]


# The request


def test_the_request_is_the_golden_one(sink: HttpSink, repository: Path) -> None:
    """Server and client hold to the same file."""
    golden = json.loads((repository / "tests/golden/events-request.json").read_text())
    events = [decode_event(raw) for raw in split_events(json.dumps(golden).encode())]
    exporter = HttpExporter(sink.url + "/", "fp_project_1", user_agent="failpath-otel/9")
    exporter.export(events, timeout_millis=5000)
    exporter.close()
    (request,) = sink.requests
    assert request.line == "POST /v1/events HTTP/1.1"
    assert request.headers["authorization"] == "Bearer fp_project_1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == "failpath-otel/9"
    sent = gzip.decompress(request.body) if "content-encoding" in request.headers else request.body
    assert json.loads(sent) == golden


def test_bodies_above_a_kibibyte_are_compressed(sink: HttpSink) -> None:
    send(sink, 1)
    send(sink, *range(1, 50))
    small, large = sink.requests
    assert "content-encoding" not in small.headers
    assert large.headers["content-encoding"] == "gzip"
    assert len(large.events) == 49


def test_a_base_path_of_the_endpoint_is_kept(sink: HttpSink) -> None:
    exporter = HttpExporter(f"{sink.url}/ingest")
    exporter.export([event()], timeout_millis=5000)
    exporter.close()
    assert sink.requests[0].line == "POST /ingest/v1/events HTTP/1.1"


@pytest.mark.parametrize("chunked", [False, True])
def test_the_connection_is_kept(sink: HttpSink, chunked: bool) -> None:
    def answer(request: Request, connection: socket.socket) -> None:
        body = sink.store(request)
        if chunked:
            head = b"HTTP/1.1 202 X\r\nTransfer-Encoding: chunked\r\n\r\n"
            connection.sendall(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        else:
            connection.sendall(reply(202, body))

    sink.answer = answer
    exporter = HttpExporter(sink.url)
    for number in range(5):
        exporter.export([event(number)], timeout_millis=5000)
    exporter.close()
    assert [request.connection for request in sink.requests] == [1] * 5


def test_a_kept_connection_that_the_server_closed_is_replaced(sink: HttpSink) -> None:
    exporter = HttpExporter(sink.url)
    exporter.export([event(1)], timeout_millis=5000)
    sink.stop()
    sink.start()
    until(lambda: not sink.open_connections)
    exporter.export([event(2)], timeout_millis=5000)
    exporter.close()
    assert sink.connections == 2


def test_close_twice_and_use_after_close(sink: HttpSink) -> None:
    exporter = HttpExporter(sink.url)
    exporter.close()
    exporter.export([event(1)], timeout_millis=5000)
    exporter.close()
    exporter.close()
    assert len(sink.stored) == 1


def test_netrc_does_not_replace_the_key(sink: HttpSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    send(sink, key="fp_project_1")
    send(sink)
    assert [request.headers.get("authorization") for request in sink.requests] == ["Bearer fp_project_1", None]


def test_loopback_does_not_go_through_a_proxy(sink: HttpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs no key because it stays on this machine must stay on this machine."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    send(sink)
    assert len(sink.stored) == 1


def test_other_hosts_go_through_the_proxy_of_the_environment(sink: HttpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, sink.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    exporter = HttpExporter("http://failpath.invalid")
    exporter.export([event()], timeout_millis=5000)
    exporter.close()
    assert sink.requests[0].line == "POST http://failpath.invalid/v1/events HTTP/1.1"


def test_large_batches_go_out_in_several_requests(sink: HttpSink) -> None:
    send(sink, *range(1, 200), metadata={"blob": ["x" * 1000] * 16})
    assert len(sink.requests) > 2
    assert len(sink.stored) == 199
    assert all(times == 1 for times in sink.arrivals.values())


def test_an_event_that_cannot_be_encoded_is_rejected_alone(sink: HttpSink) -> None:
    exporter = HttpExporter(sink.url)
    broken = event(2, timestamp=10**30)
    with pytest.raises(RejectedError) as caught:
        exporter.export([event(1), broken, event(3)], timeout_millis=5000)
    exporter.close()
    assert set(caught.value.rejected) == {broken.event_id}
    assert len(sink.stored) == 2


def test_the_key_is_not_shown() -> None:
    assert "fp_secret" not in repr(HttpExporter("http://127.0.0.1:1", "fp_secret"))


# Answers


def test_rejected_events_are_named(sink: HttpSink) -> None:
    body = json.dumps({"accepted": 1, "duplicates": 0, "rejected": [{"eventId": "abc", "reason": "too old"}]}).encode()
    sink.answer = always(202, body)
    with pytest.raises(RejectedError) as caught:
        send(sink)
    assert caught.value.rejected == {"abc": "too old"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"7",
        b'{"rejected": 5}',
        b'{"rejected": null}',
        b'{"rejected": [5]}',
        b'{"rejected": [{}]}',
        b"\xff\x00",
    ],
)
def test_success_with_an_odd_body_is_success(sink: HttpSink, body: bytes) -> None:
    sink.answer = always(202, body)
    send(sink)


PROBLEM = json.dumps({"title": "Bad", "detail": "the detail"}).encode()


@pytest.mark.parametrize("status", [402, 404, 405, 415, 421, 451])
def test_other_client_errors_refuse_the_batch(sink: HttpSink, status: int) -> None:
    sink.answer = always(status, PROBLEM)
    with pytest.raises(ExportError, match=f"{status}: the detail") as caught:
        send(sink)
    assert type(caught.value) is ExportError


@pytest.mark.parametrize("status", [400, 409, 422])
def test_answers_about_what_is_in_the_batch_are_told_apart(sink: HttpSink, status: int) -> None:
    sink.answer = always(status, PROBLEM)
    with pytest.raises(BatchRefusedError, match=f"{status}: the detail"):
        send(sink)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_says_so(sink: HttpSink, status: int) -> None:
    sink.answer = always(status, PROBLEM)
    with pytest.raises(UnauthorizedError, match="check the project key"):
        send(sink, key="fp_x")


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
def test_passing_troubles_are_tried_again(sink: HttpSink, status: int) -> None:
    sink.answer = always(status, PROBLEM)
    with pytest.raises(RetryableError, match="the detail") as caught:
        send(sink)
    assert caught.value.retry_after is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [("7", 7), ("0", 0), ("1.5", 1.5), ("-3", 0), ("99999999", 3600), ("soon", None), ("nan", None), ("inf", 3600), ("", None)],
)
def test_retry_after_in_seconds(sink: HttpSink, value: str, expected: float | None) -> None:
    sink.answer = always(503, b"", Retry_After=value)
    with pytest.raises(RetryableError) as caught:
        send(sink)
    assert caught.value.retry_after == expected


@pytest.mark.parametrize(("ahead", "low", "high"), [(60, 50, 61), (-60, 0, 0), (10**6, 3600, 3600)])
def test_retry_after_as_a_date(sink: HttpSink, ahead: int, low: float, high: float) -> None:
    sink.answer = always(429, b"", Retry_After=email.utils.formatdate(time.time() + ahead, usegmt=True))
    with pytest.raises(RetryableError) as caught:
        send(sink)
    assert caught.value.retry_after is not None
    assert low <= caught.value.retry_after <= high


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(sink: HttpSink, status: int) -> None:
    sink.answer = always(status, b"", Location=f"{sink.url}/elsewhere")
    with pytest.raises(ExportError, match=r"redirects .* not followed"):
        send(sink, key="fp_x")
    assert len(sink.requests) == 1


def test_413_splits_the_batch_until_it_fits(sink: HttpSink) -> None:
    def answer(request: Request, connection: socket.socket) -> None:
        too_large = len(request.events) > 3
        connection.sendall(reply(413) if too_large else reply(202, sink.store(request)))

    sink.answer = answer
    send(sink, *range(1, 11))
    assert len(sink.stored) == 10
    assert set(sink.arrivals.values()) == {1}


def test_an_event_too_large_by_itself_is_rejected_alone(sink: HttpSink) -> None:
    def answer(request: Request, connection: socket.socket) -> None:
        too_large = any(each["stepKey"] == "step-4" for each in request.events)
        connection.sendall(reply(413) if too_large else reply(202, sink.store(request)))

    sink.answer = answer
    with pytest.raises(RejectedError) as caught:
        send(sink, *range(1, 8))
    assert set(caught.value.rejected) == {event(4).event_id}
    assert len(sink.stored) == 6


# Together with the client


def test_a_client_delivers_through_trouble_exactly_once(sink: HttpSink, client: Client) -> None:
    sink.answer = in_turn(sink, reset, always(503, b"", Retry_After="0"), always(429, b"", Retry_After="0.3"), cut)
    failpath = client(endpoint=sink.url)
    run = failpath.run("checkout", "r1")
    for number in range(100):
        run.step(f"step-{number}", lambda: None)
    sink.wait_for(lambda sink: len(sink.stored) == 200)
    assert set(sink.arrivals.values()) == {1}
    assert failpath.flush().sent == 200
    assert failpath.stats().dropped == {}


def test_the_clients_key_and_version_are_sent(sink: HttpSink, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILPATH_PROJECT_KEY", "fp_env")
    failpath = client(endpoint=sink.url)
    failpath.run("checkout").skip("pay")
    assert failpath.flush()
    headers = sink.requests[0].headers
    assert headers["authorization"] == "Bearer fp_env"
    assert headers["user-agent"].startswith("failpath-otel/")


def test_a_refused_key_stops_the_client(sink: HttpSink, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    sink.answer = always(401, PROBLEM)
    failpath = client(endpoint=sink.url, project_key="fp_wrong")
    for _ in range(3):
        failpath.run("checkout").skip("pay")
        failpath.flush()
    assert [len(request.events) for request in sink.requests] == [1, 0], "an empty batch asks whether it is the key"
    assert failpath.stats().dropped == {"unauthorized": 3}
    assert "fp_wrong" not in caplog.text
    assert sum("sending stops" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("library", ["requests", "urllib3"])
def test_own_requests_are_not_traced(sink: HttpSink, client: Client, library: str) -> None:
    """With the instrumentations of the libraries that carry them."""
    module = pytest.importorskip(f"opentelemetry.instrumentation.{library}")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    instrumentor = {"requests": "RequestsInstrumentor", "urllib3": "URLLib3Instrumentor"}[library]
    instrumentation = getattr(module, instrumentor)()
    instrumentation.instrument(tracer_provider=provider)
    try:
        failpath = client(endpoint=sink.url, tracer_provider=provider)
        failpath.run("checkout", "r1").step("pay", lambda: None)
        assert failpath.flush().sent == 2
    finally:
        instrumentation.uninstrument()
    assert [span.name for span in spans.get_finished_spans()] == ["checkout/pay"]


def test_own_requests_suppress_instrumentation_in_the_worker_and_in_the_caller(client: Client) -> None:
    from opentelemetry import context

    utils = pytest.importorskip("opentelemetry.instrumentation.utils")
    seen: list[object] = []

    class Looking:
        def export(self, batch: object, /, *, timeout_millis: int) -> None:
            seen.append((utils.is_instrumentation_enabled(), context.get_value("suppress_instrumentation")))

        def close(self) -> None:
            pass

    failpath = client(exporter=Looking())
    failpath.run("checkout").skip("pay")
    failpath.flush()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("no thread")))
        other = client(exporter=Looking())
        other.run("checkout").skip("pay")
        other.flush()
    assert seen == [(False, True)] * 2
    assert utils.is_instrumentation_enabled()


def test_urllib3_does_not_warn_of_retries(sink: HttpSink, caplog: pytest.LogCaptureFixture) -> None:
    sink.stop()
    with caplog.at_level(logging.WARNING), pytest.raises(RetryableError):
        send(sink)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("module", "name", "failure"),
    [(time, "monotonic", StopIteration), (time, "time", StopIteration), (socket, "socket", RuntimeError("blocked in tests"))],
)
def test_what_a_test_has_put_in_place_of_clocks_and_sockets_costs_no_event(
    sink: HttpSink, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, failure: Exception
) -> None:
    """Such as `unittest.mock` with a list of values that is over, or pytest-socket."""

    def fail(*args: object, **kwargs: object) -> None:
        raise failure

    exporter = HttpExporter(sink.url)
    with monkeypatch.context() as patched:
        patched.setattr(module, name, fail)
        try:
            exporter.export([event()], timeout_millis=5000)
            failed = None
        except Exception as error:
            failed = error
    assert isinstance(failed, RetryableError)
    exporter.export([event()], timeout_millis=5000)
    exporter.close()
    assert len(sink.events) == 1
