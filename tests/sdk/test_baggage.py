"""The current run in W3C baggage: what goes out, what is believed of what comes in."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage as otel_baggage
from opentelemetry import context as otel_context
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind
from support.tracing import Tracing

from failpath_otel import ConfigError, RunPropagator, current_run
from failpath_otel.events.translate import RunIdentity
from failpath_otel.propagation import baggage
from failpath_otel.propagation.current import named_run
from failpath_otel.testing import RecordingClient

W3C = W3CBaggagePropagator()


def sent() -> str | None:
    """The baggage header that a request of this moment would have."""
    carrier: dict[str, str] = {}
    W3C.inject(carrier)
    return carrier.get("baggage")


def arriving(header: str) -> Any:
    """Makes a context current as the instrumentation of a server would."""
    return otel_context.attach(W3C.extract({"baggage": header}, Context()))


@pytest.fixture(autouse=True)
def same_context_afterwards() -> Any:
    token = otel_context.attach(Context())
    yield
    otel_context.detach(token)


def test_within_a_run_flow_and_run_id_are_in_the_baggage_and_nothing_else(client: RecordingClient) -> None:
    with client.run("checkout", "req 1/ä", metadata={"secret": "x"}):
        assert sent() == "failpath.flow.slug=checkout,failpath.run.id=req+1%2F%C3%A4"
    assert sent() is None


def test_baggage_of_others_stays_within_and_after_a_run(client: RecordingClient) -> None:
    token = otel_context.attach(otel_baggage.set_baggage("tenant", "t1"))
    with client.run("checkout", "1"):
        assert "tenant=t1" in (sent() or "")
    assert sent() == "tenant=t1"
    otel_context.detach(token)


def test_of_nested_runs_the_inner_one_is_sent_and_then_the_outer_again(client: RecordingClient) -> None:
    with client.run("checkout", "1"):
        with client.run("payment", "2"):
            assert "payment" in (sent() or "")
            assert "checkout" not in (sent() or "")
        assert "checkout" in (sent() or "")


def test_without_propagate_no_run_is_sent_not_even_that_of_the_caller(tracing: Tracing) -> None:
    arriving("failpath.flow.slug=checkout,failpath.run.id=1,tenant=t1")
    with RecordingClient(tracer_provider=tracing.provider, flows=False, propagate=False) as client, client.run("inner", "2"):
        assert sent() == "tenant=t1"


def test_a_client_that_is_off_leaves_baggage_alone() -> None:
    from failpath_otel import FailpathClient

    arriving("failpath.flow.slug=checkout,failpath.run.id=1")
    with FailpathClient(enabled=False, flows=False) as client, client.run("inner", "2"):
        assert "failpath.run.id=1" in (sent() or "")


@pytest.mark.parametrize("run_id", [" 1", "1 ", "😀" * 512, "line\nbreak"])
def test_a_run_that_a_header_cannot_carry_unchanged_is_not_sent(client: RecordingClient, run_id: str) -> None:
    with client.run("outer", "1"), client.run("checkout", run_id):
        assert sent() is None


def test_a_run_of_the_caller_is_gone_on_with(client: RecordingClient) -> None:
    arriving("failpath.flow.slug=checkout,failpath.run.id=req_1")
    run = client.current_run()
    assert run is not None
    assert (run.flow_key, run.run_id) == ("checkout", "req_1")
    assert current_run() is None, "without a client nobody knows where its events go"
    run.step("charge-card", lambda: None)
    assert client.story("checkout", "req_1") == "charge-card:success"


def test_a_decorated_step_goes_on_with_the_run_of_the_caller(client: RecordingClient) -> None:
    @client.step("charge-card")
    def charge() -> int:
        return 7

    arriving("failpath.flow.slug=checkout,failpath.run.id=req_1")
    assert charge() == 7
    assert client.story("checkout", "req_1") == "charge-card:success"


def test_a_run_of_this_process_goes_before_that_of_the_caller(client: RecordingClient) -> None:
    arriving("failpath.flow.slug=checkout,failpath.run.id=req_1")
    with client.run("payment", "2") as run:
        assert client.current_run() is run
        assert named_run() == RunIdentity("payment", "2")
    assert named_run() == RunIdentity("checkout", "req_1")


@pytest.mark.parametrize(
    "header",
    [
        "failpath.flow.slug=checkout",
        "failpath.run.id=1",
        "failpath.flow.slug=,failpath.run.id=1",
        f"failpath.flow.slug=checkout,failpath.run.id={'x' * 513}",
        "failpath.flow.slug=checkout,failpath.run.id=a%00b",
        "failpath.flow.slug=checkout,failpath.run.id=a%0Ab",
        "failpath.flow.slug=check%1b[31mout,failpath.run.id=1",
    ],
)
def test_baggage_that_cannot_name_a_run_is_ignored_counted_and_warned_of_once(
    client: RecordingClient, caplog: pytest.LogCaptureFixture, header: str
) -> None:
    before = client.stats().baggage_refused
    arriving(header)
    assert client.current_run() is None
    assert client.current_run() is None
    assert client.stats().baggage_refused == before + 2
    warned = [record for record in caplog.records if record.levelno == logging.WARNING and "baggage" in record.message]
    assert len(warned) == 1


def test_other_baggage_is_not_counted(client: RecordingClient) -> None:
    before = client.stats().baggage_refused
    arriving("tenant=t1")
    assert client.current_run() is None
    assert client.stats().baggage_refused == before


@given(st.text(min_size=1, max_size=512), st.text(min_size=1, max_size=512))
def test_what_is_written_is_read_again_exactly_or_not_at_all(flow_key: str, run_id: str) -> None:
    carrier: dict[str, str] = {}
    named = RunIdentity(flow_key, run_id)
    try:
        written = baggage.write(named, Context())
    except UnicodeEncodeError:  # lone surrogates are scrubbed before they come here
        return
    W3C.inject(carrier, written)
    # Both members together may be over the bound of a header.
    read = baggage.read(W3C.extract(carrier, Context())) if len(carrier.get("baggage", "")) <= 8192 else named
    assert read in (named, None)
    assert (read is None) == (not baggage.fits(named))


class TestHosts:
    """`RunPropagator`."""

    @pytest.mark.parametrize(
        ("attributes", "goes"),
        [
            ({"server.address": "orders.internal"}, True),
            ({"server.address": "ORDERS.internal"}, True),
            ({"url.full": "http://orders.internal:8080/x"}, True),
            ({"http.url": "http://a.svc.local/x"}, True),
            ({"http.host": "orders.internal:80"}, True),
            ({"server.address": "api.stripe.com"}, False),
            ({"server.address": "orders.internal.evil.com"}, False),
            ({"url.full": "http://[broken"}, False),
            ({}, False),
        ],
    )
    def test_the_run_goes_to_named_hosts_only_and_all_else_to_all(
        self, client: RecordingClient, tracing: Tracing, attributes: dict[str, str], goes: bool
    ) -> None:
        propagator = RunPropagator(W3C, hosts=["orders.internal", "*.svc.local"])
        token = otel_context.attach(otel_baggage.set_baggage("tenant", "t1"))
        tracer = tracing.provider.get_tracer("httpx")
        with client.run("checkout", "1"), tracer.start_as_current_span("GET", kind=SpanKind.CLIENT, attributes=attributes):
            carrier: dict[str, str] = {}
            propagator.inject(carrier)
        otel_context.detach(token)
        assert ("failpath.run.id=1" in carrier["baggage"]) is goes
        assert "tenant=t1" in carrier["baggage"]

    def test_what_comes_in_is_read_as_ever(self) -> None:
        propagator = RunPropagator(W3C, hosts=[])
        context = propagator.extract({"baggage": "failpath.flow.slug=a,failpath.run.id=b"}, Context())
        assert named_run(context) == RunIdentity("a", "b")
        assert propagator.fields == W3C.fields

    @pytest.mark.parametrize("hosts", ["orders.internal", ["http://orders.internal"], [""], [7]])
    def test_hosts_that_are_none_are_refused_by_name(self, hosts: Any) -> None:
        with pytest.raises(ConfigError, match="hosts must"):
            RunPropagator(W3C, hosts=hosts)
