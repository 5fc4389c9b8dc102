"""OtlpExporter by gRPC, against a real gRPC server that answers well and badly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from support.delivery import event, sooner_than
from support.otlp_grpc import Call, GrpcSink, grpc_sink, hang, refused

from failpath_otel import FailpathClient
from failpath_otel.errors import RejectedError, RetryableError, UnauthorizedError
from failpath_otel.exporters.otlp import encoding
from failpath_otel.exporters.otlp.exporter import OtlpExporter

Client = Callable[..., FailpathClient]
Code = grpc.StatusCode


@pytest.fixture
def grpc_server() -> Iterator[GrpcSink]:
    with grpc_sink() as sink:
        yield sink


@pytest.fixture
def exporter(grpc_server: GrpcSink) -> Iterator[Callable[..., OtlpExporter]]:
    """Makes exporters to the server, and closes them."""
    made: list[OtlpExporter] = []

    def make(**variables: str) -> OtlpExporter:
        named = {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()}
        where = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{grpc_server.target}"}
        made.append(OtlpExporter({**where, **named}, user_agent="failpath-otel/9"))
        return made[-1]

    yield make
    for each in made:
        each.close()


Exporter = Callable[..., OtlpExporter]


def export(exporter: OtlpExporter, *numbers: int, timeout_millis: int = 10_000) -> None:
    exporter.export([event(number) for number in numbers or (1,)], timeout_millis=timeout_millis)


def test_the_call(grpc_server: GrpcSink, exporter: Exporter) -> None:
    export(exporter(HEADERS="authorization=Bearer%20abc,X-Tenant=t1"), 1, 2)
    (call,) = grpc_server.calls
    assert call.metadata["authorization"] == "Bearer abc"
    assert call.metadata["x-tenant"] == "t1"
    assert call.metadata["user-agent"].startswith("failpath-otel/9 ")
    assert set(grpc_server.arrivals) == {event(1).event_id, event(2).event_id}


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
def test_compressed_calls_are_understood(grpc_server: GrpcSink, exporter: Exporter, compression: str) -> None:
    export(exporter(COMPRESSION=compression), *range(1, 50))
    assert len(grpc_server.arrivals) == 49


def test_the_channel_is_kept(grpc_server: GrpcSink, exporter: Exporter) -> None:
    same = exporter()
    for number in range(1, 4):
        export(same, number)
    assert len({call.peer for call in grpc_server.calls}) == 1


@pytest.mark.parametrize(
    "code", [Code.CANCELLED, Code.DEADLINE_EXCEEDED, Code.ABORTED, Code.OUT_OF_RANGE, Code.UNAVAILABLE, Code.DATA_LOSS]
)
def test_codes_that_are_tried_again(grpc_server: GrpcSink, exporter: Exporter, code: Any) -> None:
    grpc_server.answer = refused(code, "come again")
    with pytest.raises(RetryableError, match=f"answered {code.name}: come again") as caught:
        export(exporter())
    assert caught.value.retry_after is None
    assert len(grpc_server.calls) == 1


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED])
def test_the_wait_that_a_server_asks_for_is_known(grpc_server: GrpcSink, exporter: Exporter, code: Any) -> None:
    grpc_server.answer = refused(code, "busy", retry_after=0.75)
    with pytest.raises(RetryableError) as caught:
        export(exporter())
    assert caught.value.retry_after == 0.75


def test_an_exhausted_resource_is_held_also_without_a_time(grpc_server: GrpcSink, exporter: Exporter) -> None:
    grpc_server.answer = refused(Code.RESOURCE_EXHAUSTED, "too many requests")
    with pytest.raises(RetryableError, match="RESOURCE_EXHAUSTED"):
        export(exporter())


@pytest.mark.parametrize(
    "code", [Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNKNOWN, Code.NOT_FOUND, Code.FAILED_PRECONDITION]
)
def test_codes_that_refuse_the_batch(grpc_server: GrpcSink, exporter: Exporter, code: Any) -> None:
    grpc_server.answer = refused(code, "not like that")
    with pytest.raises(RejectedError, match=f"2 events rejected.*{code.name}: not like that"):
        export(exporter(), 1, 2)
    assert len(grpc_server.calls) == 1


@pytest.mark.parametrize("code", [Code.UNAUTHENTICATED, Code.PERMISSION_DENIED])
def test_codes_that_stop_sending(grpc_server: GrpcSink, exporter: Exporter, code: Any) -> None:
    grpc_server.answer = refused(code)
    with pytest.raises(UnauthorizedError, match="check OTEL_EXPORTER_OTLP_HEADERS"):
        export(exporter())


@pytest.mark.parametrize("says", ["grpc: received message larger than max (2 vs. 1)", "message exceeds maximum size 1: 2"])
def test_a_message_that_is_too_large_is_divided(grpc_server: GrpcSink, exporter: Exporter, says: str) -> None:
    def answer(call: Call, context: Any) -> ExportLogsServiceResponse:
        if len(call.records) > 3:
            context.abort(Code.RESOURCE_EXHAUSTED, says)
        return grpc_server.take(call)

    grpc_server.answer = answer
    export(exporter(), *range(1, 21))
    assert set(grpc_server.arrivals.values()) == {1}
    assert len(grpc_server.arrivals) == 20


def test_a_batch_over_the_limit_of_servers_goes_in_several_calls(grpc_server: GrpcSink, exporter: Exporter) -> None:
    """4 MiB, by default."""
    text = "x" * 16_000
    events = [event(number, metadata={"a": text, "b": text, "c": text}) for number in range(1, 150)]
    exporter().export(events, timeout_millis=20_000)
    assert len(grpc_server.arrivals) == 149
    assert len(grpc_server.calls) >= 7


def test_partial_success_is_told(grpc_server: GrpcSink, exporter: Exporter, caplog: pytest.LogCaptureFixture) -> None:
    def answer(call: Call, context: Any) -> ExportLogsServiceResponse:
        response = ExportLogsServiceResponse()
        response.partial_success.rejected_log_records = 1
        response.partial_success.error_message = "no room"
        return response

    grpc_server.answer = answer
    export(exporter(), 1, 2)
    assert "1 of 2 log records were refused" in caplog.text
    with pytest.raises(RejectedError, match="no room"):
        export(exporter(), 1)


# Time and outages


@pytest.mark.parametrize(("timeout_millis", "variable"), [(300, None), (0, "0.3"), (60_000, "0.3")])
def test_a_server_that_hangs_is_left_at_the_timeout(
    grpc_server: GrpcSink, exporter: Exporter, timeout_millis: int, variable: str | None
) -> None:
    grpc_server.answer = hang(grpc_server)
    same = exporter(**({} if variable is None else {"TIMEOUT": variable}))
    started = time.monotonic()
    with sooner_than(30), pytest.raises(RetryableError, match="DEADLINE_EXCEEDED"):
        export(same, timeout_millis=timeout_millis)
    assert time.monotonic() - started > 0.25


def test_the_timeout_is_for_the_batch_however_many_calls_it_takes(
    grpc_server: GrpcSink, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "MAX_BODY_BYTES", 1)

    def answer(call: Call, context: Any) -> ExportLogsServiceResponse:
        grpc_server.released.wait(0.1)  # far less than the timeout, but 99 times it is far more
        return ExportLogsServiceResponse()

    grpc_server.answer = answer
    with pytest.raises(RetryableError):
        export(exporter(), *range(1, 100), timeout_millis=1500)
    assert 2 <= len(grpc_server.calls) <= 16


def test_after_an_outage_the_next_attempt_connects_at_once(grpc_server: GrpcSink, exporter: Exporter) -> None:
    """gRPC by itself would let a minute and more go by after a few failures, and refuse each call meanwhile."""
    same = exporter()
    export(same, 1)
    grpc_server.stop()
    for _ in range(6):
        with pytest.raises(RetryableError, match="UNAVAILABLE"):
            export(same, 2, timeout_millis=5000)
    grpc_server.start()
    export(same, 2)
    assert set(grpc_server.arrivals) == {event(1).event_id, event(2).event_id}


# Together with the client


@pytest.fixture
def otlp(grpc_server: GrpcSink, client: Client, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FailpathClient]:
    """Makes clients that send log records to the server."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{grpc_server.target}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc")
    return lambda **options: client(**{"exporter": "otlp", **options})


def test_a_client_delivers_through_an_outage(grpc_server: GrpcSink, otlp: Client) -> None:
    grpc_server.stop()
    failpath = otlp()
    run = failpath.run("checkout", "r1")
    for number in range(500):
        run.step(f"step-{number}", lambda: None)
    assert failpath.flush(500).pending == 1000
    grpc_server.start()
    assert failpath.flush(20_000).sent == 1000
    assert len(grpc_server.arrivals) == 1000
    assert set(grpc_server.arrivals.values()) == {1}
    assert failpath.stats().dropped == {}


@pytest.mark.parametrize("method", ["flush", "shutdown"])
def test_deadlines_hold_with_a_server_that_hangs(grpc_server: GrpcSink, otlp: Client, method: str) -> None:
    grpc_server.answer = hang(grpc_server)
    failpath = otlp(send_timeout_millis=60_000)
    for number in range(1000):
        failpath.run("checkout").skip(f"step-{number}")
    with sooner_than(30):
        getattr(failpath, method)(400)


def test_where_no_thread_can_be_started_the_caller_sends(
    grpc_server: GrpcSink, otlp: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the exit of newer Pythons; the calls of gRPC must do without a thread then."""
    import threading

    failpath = otlp()
    original = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if self.name == "failpath-delivery" or threading.current_thread() is threading.main_thread():
            raise RuntimeError("can't start new thread")
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        failpath.run("checkout", "r1").step("pay", lambda: None)
        assert failpath.flush(5000).sent == 2
    assert len(grpc_server.arrivals) == 2
