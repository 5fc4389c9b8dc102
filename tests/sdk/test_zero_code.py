"""The client of the environment: when there is one, that it never stops a service, and that it gives way to one in code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from types import SimpleNamespace

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from support.delivery import event, no_thread
from support.tracing import STEP, told

from failpath_otel import FailpathClient, FailpathSpanProcessor, MemoryExporter, zero_code
from failpath_otel.config import Options
from failpath_otel.delivery import Delivery, fallback
from failpath_otel.testing import RecordingClient
from failpath_otel.zero_code import ZeroCodeClient


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process in which nothing was started, with an empty environment."""
    # What is made once for a process has no public way back: a process has no use for one.
    monkeypatch.setattr(zero_code, "_client", None)
    monkeypatch.setattr(fallback, "_own", {})  # clients that other tests left open
    for name in [name for name in os.environ if name.startswith("FAILPATH_")]:
        monkeypatch.delenv(name)
    yield
    client = zero_code.client()
    if client is not None:
        client.shutdown()


def pay(key: str) -> None:
    trace.get_tracer("a-library").start_span("pay", attributes={**STEP, "failpath.step.key": key}).end()


def test_opentelemetry_finds_it_by_its_entry_point() -> None:
    (entry,) = entry_points(group="opentelemetry_pre_instrument", name="failpath_otel")
    assert entry.load() is zero_code.start


@pytest.mark.parametrize("value", ["", " "])
@pytest.mark.parametrize("name", zero_code.ASKED_BY)
def test_an_environment_that_says_nothing_asks_for_nothing(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(name, value)
    zero_code.start()
    assert zero_code.client() is None
    assert caplog.records == []


@pytest.mark.usefixtures("no_global_provider")
@pytest.mark.parametrize(
    ("name", "value"),
    [("FAILPATH_PROJECT_KEY", "k"), ("FAILPATH_DEV_ENDPOINT", "http://127.0.0.1:9"), ("FAILPATH_EXPORTER", "memory")],
)
def test_each_variable_that_says_where_to_asks_for_one_client(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    zero_code.start()
    first = zero_code.client()
    zero_code.start()
    assert first is not None
    assert zero_code.client() is first


@pytest.mark.parametrize("name", ["FAILPATH_EXPORTER", "FAILPATH_FLOWS", "FAILPATH_ENABLED"])
def test_what_cannot_be_used_is_one_error_in_the_log(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FAILPATH_PROJECT_KEY", "topsecret")
    monkeypatch.setenv(name, "strict:/nowhere/at/all")
    zero_code.start()
    (record,) = caplog.records
    assert (record.levelno, record.exc_info) == (logging.ERROR, None)
    assert "failpath-otel is off, and the service goes on without it: " in record.getMessage()
    assert "topsecret" not in record.getMessage()


def test_a_fault_of_ours_is_logged_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(options: Options, user_agent: str) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("failpath_otel.client.open_sink", fail)
    monkeypatch.setenv("FAILPATH_EXPORTER", "memory")
    zero_code.start()
    (record,) = caplog.records
    assert record.exc_info is not None


# Giving way to a client in code


class Both:
    """A client of the environment on a global provider, with its events in memory."""

    def __init__(self) -> None:
        trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
        self._exporter = MemoryExporter()
        self.client = ZeroCodeClient(exporter=self._exporter, flows=False)

    @property
    def told(self) -> list[str]:
        assert self.client.flush(10_000)
        return told(self._exporter.events)


@pytest.fixture
def both(no_global_provider: None) -> Iterator[Both]:
    both = Both()
    yield both
    both.client.shutdown()


def test_a_client_in_code_takes_spans_while_it_is_open(both: Both) -> None:
    pay("before")
    with RecordingClient(flows=False) as own:
        pay("with")
    pay("after")
    assert told(own.events) == ["with:running", "with:success"]
    assert both.told == ["before:running", "before:success", "after:running", "after:success"]


def test_a_step_that_began_before_ends_where_it_began(both: Both) -> None:
    span = trace.get_tracer("a-library").start_span("pay", attributes=STEP)
    with RecordingClient(flows=False) as own:
        span.end()
        assert own.events == []
    assert both.told == ["charge:running", "charge:success"]


def test_a_client_on_another_provider_leaves_those_of_the_global_one_alone(both: Both) -> None:
    with RecordingClient(flows=False, tracer_provider=TracerProvider(shutdown_on_exit=False)) as own:
        pay("charge")
    assert own.events == []
    assert both.told == ["charge:running", "charge:success"]


def test_a_client_that_is_switched_off_takes_nothing(both: Both) -> None:
    FailpathClient(enabled=False)
    FailpathClient(exporter="none", flows=False)
    pay("charge")
    assert both.told == ["charge:running", "charge:success"]


def test_a_processor_that_the_service_adds_takes_spans_too(both: Both) -> None:
    exporter = MemoryExporter()
    processor = FailpathSpanProcessor(exporter=exporter)
    trace.get_tracer_provider().add_span_processor(processor)  # type: ignore[attr-defined]
    pay("charge")
    processor.shutdown()
    assert told(exporter.events) == ["charge:running", "charge:success"]
    assert both.told == []


class Server:
    """Shuts down as uvicorn's does."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure

    async def shutdown(self, sockets: list[object] | None = None) -> object:
        if self.failure is not None:
            raise self.failure
        return sockets


@pytest.fixture
def import_uvicorn(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Starts, and then has the service import something as ``uvicorn.server``."""

    def start_and_import(module: object) -> None:
        waiting: dict[str, Callable[[object], None]] = {}
        wrapt = SimpleNamespace(register_post_import_hook=lambda hook, name: waiting.update({name: hook}))
        monkeypatch.setitem(sys.modules, "wrapt", wrapt)
        monkeypatch.setenv("FAILPATH_EXPORTER", "memory")
        zero_code.start()
        waiting["uvicorn.server"](module)

    return start_and_import


@pytest.mark.parametrize("failure", [None, OSError("a socket")])
def test_when_uvicorn_has_shut_down_every_client_of_the_process_has_sent(
    failure: Exception | None, import_uvicorn: Callable[[object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SimpleNamespace(Server=type("OfUvicorn", (Server,), {}))
    import_uvicorn(module)
    exporters = [MemoryExporter(), MemoryExporter()]
    deliveries = [Delivery(exporter, max_queue_size=10) for exporter in exporters]
    try:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)  # so that they are sent by reason of the shutdown alone
            for delivery in deliveries:
                delivery.record(event(1))
        with contextlib.nullcontext() if failure is None else pytest.raises(OSError, match="a socket"):
            assert asyncio.run(module.Server(failure).shutdown(["a socket"])) == ["a socket"]
        assert [len(exporter.events) for exporter in exporters] == [1, 1]
    finally:
        for delivery in deliveries:
            delivery.shutdown(0)


@pytest.mark.parametrize(
    "module", [SimpleNamespace(), SimpleNamespace(Server=object), SimpleNamespace(Server=SimpleNamespace(shutdown=print))]
)
def test_a_uvicorn_that_is_not_known_is_left_alone(
    module: SimpleNamespace, import_uvicorn: Callable[[object], None], caplog: pytest.LogCaptureFixture
) -> None:
    before = getattr(getattr(module, "Server", None), "shutdown", None)
    import_uvicorn(module)
    assert caplog.records == []
    assert getattr(getattr(module, "Server", None), "shutdown", None) is before
