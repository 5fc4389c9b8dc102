"""What a client leaves behind: nothing once it is shut down, and no thread once it is forgotten."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from support.delivery import ScriptedExporter, until
from support.tracing import Tracing

from failpath_otel import FailpathClient
from failpath_otel.rules import Attribute, SpanRule

RULE = SpanRule(name="GET /pay", flow="checkout", run=(Attribute("order"),), step="pay")


def processors(provider: Any) -> tuple[Any, ...]:
    """Those of a provider, which OpenTelemetry has no public way to ask for."""
    found: tuple[Any, ...] = provider._active_span_processor._span_processors
    return found


def deliveries() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "failpath-delivery"}


def make(provider: TracerProvider, exporter: Any = "memory", **options: Any) -> FailpathClient:
    return FailpathClient(exporter=exporter, tracer_provider=provider, flows=False, **{"rules": False, **options})


def test_clients_that_are_shut_down_leave_no_processor_behind(tracing: Tracing) -> None:
    before = processors(tracing.provider)
    for _ in range(200):
        client = make(tracing.provider)
        client.run("checkout", "1").step("pay", lambda: None)
        client.shutdown()
    assert processors(tracing.provider) == before


def test_a_client_that_is_shut_down_leaves_the_processors_of_others_where_they_are(tracing: Tracing) -> None:
    first, second = make(tracing.provider), make(tracing.provider)
    known = processors(tracing.provider)
    first.shutdown()
    assert processors(tracing.provider) == (*known[:-2], known[-1])
    second.shutdown()


def test_steps_after_the_shutdown_do_not_attach_it_again(tracing: Tracing) -> None:
    client = make(tracing.provider)
    client.shutdown()
    before = processors(tracing.provider)
    assert client.run("checkout", "1").step("pay", lambda: 7) == 7
    assert processors(tracing.provider) == before


def test_the_sampler_of_the_service_is_put_back(tracing: Tracing) -> None:
    before = tracing.provider.sampler
    client = make(tracing.provider, record_unsampled=True, rules=[RULE])
    assert tracing.provider.sampler is not before
    client.shutdown()
    assert tracing.provider.sampler is before


def test_a_provider_of_another_make_keeps_a_processor_that_does_nothing() -> None:
    class Other:
        """As logfire's, which keeps its processors elsewhere."""

        def __init__(self) -> None:
            self.inner = TracerProvider()
            self.added: list[Any] = []

        def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
            return self.inner.get_tracer(*args, **kwargs)

        def add_span_processor(self, processor: Any) -> None:
            self.added.append(processor)
            self.inner.add_span_processor(processor)

    other: Any = Other()
    client = make(other, rules=[RULE])
    client.shutdown()
    with other.get_tracer("web").start_as_current_span("GET /pay", attributes={"order": "1"}):
        pass
    assert client.stats().dropped == {}
    assert len(other.added) == 1


def test_a_client_that_is_forgotten_sends_what_it_has_ends_its_thread_and_says_so_once(
    tracing: Tracing, caplog: pytest.LogCaptureFixture
) -> None:
    before, threads = processors(tracing.provider), deliveries()
    exporters = [ScriptedExporter() for _ in range(3)]
    for exporter in exporters:
        make(tracing.provider, exporter).run("checkout", "1").step("pay", lambda: None)
    gc.collect()
    until(lambda: deliveries() <= threads)
    assert [[event.status for event in exporter.events] for exporter in exporters] == [["running", "success"]] * 3
    assert [exporter.closed for exporter in exporters] == [1, 1, 1]
    assert caplog.text.count("dropped without shutdown()") == 1
    assert processors(tracing.provider) == before


def test_a_client_whose_run_goes_on_is_not_forgotten(tracing: Tracing) -> None:
    exporter = ScriptedExporter()
    run = make(tracing.provider, exporter).run("checkout", "1")
    for _ in range(3):
        run.step("pay", lambda: None)
        gc.collect()
    exporter.wait_for(6)
    assert exporter.closed == 0
    del run


def test_a_client_without_a_name_stays_for_the_spans_of_libraries(tracing: Tracing) -> None:
    exporter = ScriptedExporter()
    make(tracing.provider, exporter, rules=[RULE])
    gc.collect()
    with tracing.provider.get_tracer("web").start_as_current_span("GET /pay", attributes={"order": "1"}):
        pass
    exporter.wait_for(2)


def test_a_forgotten_client_gives_a_destination_that_fails_up(tracing: Tracing, monkeypatch: pytest.MonkeyPatch) -> None:
    from failpath_otel.delivery import worker
    from failpath_otel.errors import RetryableError

    monkeypatch.setattr(worker, "_RETIRING_SECONDS", 0.2)  # no option sets it: nobody is left to set one
    threads = deliveries()
    make(tracing.provider, ScriptedExporter(*[RetryableError("no answer")] * 1000)).run("checkout", "1").step(
        "pay", lambda: None
    )
    gc.collect()
    until(lambda: deliveries() <= threads)
