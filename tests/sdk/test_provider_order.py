"""One line sets it up, wherever it stands: before the tracer provider is set or after it."""

from __future__ import annotations

import gc
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from support.delivery import until
from support.http_sink import http_sink
from support.served import environment
from support.tracing import STEP, Provider, told

from failpath_otel import FailpathClient, MemoryExporter
from failpath_otel.testing import RecordingClient

SERVICE = """
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import get_tracer, set_tracer_provider
{before}
early = get_tracer("a-library")
set_tracer_provider(TracerProvider())
{after}
step = {{"failpath.flow.slug": "checkout", "failpath.run.id": "1"}}
early.start_span("pay", attributes={{**step, "failpath.step.key": "charge"}}).end()
get_tracer("another").start_span("ship", attributes={{**step, "failpath.step.key": "ship"}}).end()
"""
ONE_LINE = "import failpath_otel; failpath_otel.FailpathClient()"


@pytest.mark.parametrize(("before", "after"), [(ONE_LINE, ""), ("", ONE_LINE)], ids=["before", "after"])
def test_a_service_of_foreign_spans_alone_is_set_up_by_one_line_in_any_order(before: str, after: str, tmp_path: Path) -> None:
    with http_sink() as sink:
        env = environment({"FAILPATH_DEV_ENDPOINT": sink.url})
        done = subprocess.run(
            [sys.executable, "-c", SERVICE.format(before=before, after=after)],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert sorted(f"{event['stepKey']}:{event['status']}" for event in sink.events) == [
            "charge:running",
            "charge:success",
            "ship:running",
            "ship:success",
        ]


@pytest.mark.usefixtures("no_global_provider")
def test_a_client_that_nobody_holds_waits_for_its_provider_all_the_same() -> None:
    exporter = MemoryExporter()
    FailpathClient(exporter=exporter, delivery="await", flows=False)
    gc.collect()
    trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    trace.get_tracer("a-library").start_span("pay", attributes=STEP).end()
    until(lambda: len(exporter.events) == 2)
    assert told(exporter.events) == ["charge:running", "charge:success"]


@pytest.mark.usefixtures("no_global_provider")
def test_a_client_that_was_shut_down_is_not_attached() -> None:
    with RecordingClient(flows=False):
        pass
    provider = Provider()
    trace.set_tracer_provider(provider)
    assert provider.added == []


@pytest.mark.usefixtures("no_global_provider")
def test_whoever_sets_a_provider_meets_no_fault_of_a_client_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(TracerProvider):
        def add_span_processor(self, span_processor: Any) -> None:
            raise RuntimeError("no processors here")

    with RecordingClient(flows=False) as client:
        trace.set_tracer_provider(Closed(shutdown_on_exit=False))
        assert isinstance(trace.get_tracer_provider(), Closed)
        client.run("checkout", "1").step("charge", lambda: None)
        assert told(client.events) == ["charge:running", "charge:success"]


@pytest.mark.usefixtures("no_global_provider")
def test_a_provider_is_told_of_also_where_only_the_public_function_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    # What the public function calls, and so what is wrapped where it is there; perhaps it was, by a client of another test.
    private = inspect.unwrap(trace._set_tracer_provider)

    def public(provider: Any) -> None:
        private(provider, True)

    monkeypatch.setattr(trace, "set_tracer_provider", public)
    monkeypatch.delattr(trace, "_set_tracer_provider")
    with RecordingClient(flows=False) as client:
        assert trace.set_tracer_provider is not public
        trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
        trace.get_tracer("a-library").start_span("pay", attributes=STEP).end()
        assert told(client.events) == ["charge:running", "charge:success"]


@pytest.mark.usefixtures("no_global_provider")
def test_only_one_wrapper_is_put_around_however_many_clients_wait() -> None:
    with RecordingClient(flows=False), RecordingClient(flows=False):
        wrapped: Any = trace._set_tracer_provider  # there is no other way to see what was put around it
        assert not hasattr(wrapped.__wrapped__, "__wrapped__")
