"""A run in a job: `Run.carrier` and `FailpathClient.resume`."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from support.tracing import Tracing

from failpath_otel import FailpathClient
from failpath_otel.propagation.carrier import unpack
from failpath_otel.testing import RecordingClient


def elsewhere(do: Any) -> Any:
    """Runs ``do`` in an empty context, as another process would."""
    token = otel_context.attach(Context())
    try:
        return do()
    finally:
        otel_context.detach(token)


def test_a_worker_goes_on_with_the_run_in_the_same_trace(client: RecordingClient, tracing: Tracing) -> None:
    tracer = tracing.provider.get_tracer("service")
    with tracer.start_as_current_span("POST /checkout") as parent, client.run("checkout", "req_1") as run:
        job = json.loads(json.dumps(run.carrier()))

    def work() -> None:
        with client.resume(job) as resumed:
            assert client.current_run() is resumed
            resumed.step("ship", lambda: None)

    elsewhere(work)
    assert client.story("checkout", "req_1") == "ship:success"
    ship = next(span for span in tracing.spans if span.name == "checkout/ship")
    assert ship.context.trace_id == parent.get_span_context().trace_id
    assert ship.parent is not None
    assert ship.parent.span_id == parent.get_span_context().span_id


def test_below_a_span_of_the_same_trace_that_span_stays_the_parent(client: RecordingClient, tracing: Tracing) -> None:
    tracer = tracing.provider.get_tracer("celery")
    with tracer.start_as_current_span("send"):
        job = client.run("checkout", "1").carrier()
        with tracer.start_as_current_span("process") as consumer, client.resume(job) as run:
            run.step("ship", lambda: None)
    ship = next(span for span in tracing.spans if span.name == "checkout/ship")
    assert ship.parent is not None
    assert ship.parent.span_id == consumer.get_span_context().span_id


def test_the_carrier_is_the_w3c_form_and_holds_neither_metadata_nor_other_baggage(client: RecordingClient) -> None:
    from opentelemetry import baggage

    token = otel_context.attach(baggage.set_baggage("tenant", "t1"))
    carrier = client.run("checkout", "1", metadata={"card": "4111"}).carrier()
    otel_context.detach(token)
    assert carrier == {"baggage": "failpath.flow.slug=checkout,failpath.run.id=1"}


@given(st.text(min_size=1, max_size=512), st.text(min_size=1, max_size=512))
def test_every_run_id_survives_a_carrier(flow_key: str, run_id: str) -> None:
    with RecordingClient(flows=False) as client:
        run = client.run(flow_key, run_id)
        found = unpack(json.loads(json.dumps(run.carrier()))).run
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in run.flow_key + run.run_id):
        assert found is None, "control characters are not believed, wherever they come from"
    else:
        assert found == (run.flow_key, run.run_id)


@pytest.mark.parametrize(
    "carrier",
    [
        None,
        "baggage",
        7,
        [],
        {},
        {"baggage": 7},
        {7: "x"},
        {"baggage": "x" * 20_000},
        {"traceparent": "00-zz-zz-zz"},
        {"baggage": "failpath.flow.slug=checkout"},
        {"failpath.flow.slug": "a", "failpath.run.id": ""},
    ],
)
def test_a_carrier_without_a_run_is_warned_of_once_and_its_steps_run_unrecorded(
    client: RecordingClient, caplog: pytest.LogCaptureFixture, carrier: Any
) -> None:
    for _ in range(2):
        with client.resume(carrier) as run:
            assert run.step("ship", lambda: 7) == 7
            with run.step("bill") as step:
                step.set_metadata(a=1)
                assert step.detach() == ""
            run.skip("x")
            run.carrier()
    assert client.events == []
    assert len([record for record in caplog.records if record.levelno == logging.WARNING and "resume" in record.message]) == 1


def test_a_run_without_a_name_is_none_for_the_next_worker_either(client: RecordingClient, tracing: Tracing) -> None:
    with tracing.tracer.start_as_current_span("request"), client.resume({}) as run:
        carrier = run.carrier()
    assert list(carrier) == ["traceparent"]
    assert FailpathClient(enabled=False, flows=False).resume({}).carrier() == {}
    with client.resume(carrier) as run:
        run.step("ship", lambda: None)
    assert client.events == []


def test_a_client_that_is_off_resumes_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with FailpathClient(enabled=False, flows=False) as client, client.resume({}) as run:
        assert run.step("ship", lambda: 7) == 7
    assert not caplog.records


def test_the_context_is_as_before_after_a_resumed_run(client: RecordingClient) -> None:
    before = otel_context.get_current()
    carrier = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "baggage": "failpath.flow.slug=a,failpath.run.id=b"}
    with client.resume(carrier):
        assert trace.get_current_span().get_span_context().trace_id == int("1" * 32, 16)
    assert otel_context.get_current() == before
