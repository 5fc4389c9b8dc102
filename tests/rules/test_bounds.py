"""What senders and services can multiply is bounded, and the bound is where the documents say."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from opentelemetry import baggage
from opentelemetry.context import attach, detach
from support.delivery import growth
from support.tracing import Alone, Tracing

from failpath_otel import Attribute, Baggage, Glob, Regex, SpanRule
from failpath_otel.testing import RecordingClient

pytestmark = pytest.mark.usefixtures("each_kind_of_span")


@pytest.mark.parametrize(("length", "is_believed"), [(512, True), (513, False)])
def test_a_run_id_of_baggage_has_at_most_512_characters(length: int, is_believed: bool) -> None:
    alone = Alone(rules=[SpanRule(flow="checkout", step="order", run=(Baggage("order"), "trace"))])
    token = attach(baggage.set_baggage("order", "x" * length))
    try:
        span = alone.tracer.start_span("POST")
    finally:
        detach(token)
    span.end()
    wanted = "x" * length if is_believed else f"{span.get_span_context().trace_id:032x}"
    assert {event.run_id for event in alone.events} == {wanted}


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [(Glob("a*"), True), (Glob("*end"), False), (Regex("^a+"), True), (Regex("end$"), False)],
    ids=lambda value: getattr(value, "pattern", value),
)
def test_of_a_value_over_4096_characters_a_pattern_sees_the_beginning(pattern: Glob | Regex, matches: bool) -> None:
    rule = SpanRule(flow="checkout", step="order", run=("trace",), attributes={"body": pattern})
    alone = Alone(rules=[rule])
    alone.tracer.start_span("POST", attributes={"body": "a" * 4096 + "end"}).end()
    assert bool(alone.events) is matches


@pytest.mark.parametrize("pattern", [Glob("*end"), Regex("end$")], ids=["glob", "regex"])
def test_a_value_of_4096_characters_is_seen_whole(pattern: Glob | Regex) -> None:
    alone = Alone(rules=[SpanRule(flow="checkout", step="order", run=("trace",), attributes={"body": pattern})])
    alone.tracer.start_span("POST", attributes={"body": "a" * 4093 + "end"}).end()
    assert [event.status for event in alone.events] == ["running", "success"]


def test_nothing_is_remembered_of_a_clients_own_steps_that_have_ended(tracing: Tracing) -> None:
    """A rule that asks for the parent's run has the processor remember the spans of steps, for as long as they are open."""
    below = SpanRule(name="SELECT", step="read", run=("parent",), flow=Attribute("flow"))
    with RecordingClient(tracer_provider=tracing.provider, flows=False, rules=[below]) as client:
        run = client.run("checkout", "1")

        def pay_often() -> None:
            for _ in range(1000):
                run.step("pay", lambda: None)
            assert len(client.events) >= 2000
            client.reset()
            tracing.exporter.clear()

        assert growth(pay_often) < 100_000
        with run.step("outer"):
            assert growth(pay_often) < 100_000


def test_of_spans_that_never_end_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("failpath_otel.tracing.rule_state.MAX_OPEN_SPANS", 3)
    late = SpanRule(name="POST", flow="checkout", step="order", run=("trace",), attributes={"late": True})
    alone = Alone(rules=[late])

    def begin_many() -> None:
        for _ in range(1000):
            alone.tracer.start_span("POST")

    assert growth(begin_many) < 50_000
    spans = [alone.tracer.start_span("POST") for _ in range(10)]
    for span in spans:
        span.set_attribute("late", True)
        span.end()
    assert len(alone.events) == 10


def test_a_run_that_is_entered_within_a_step_is_the_parents(tracing: Tracing) -> None:
    rules = [
        SpanRule(name="POST", flow="checkout", step="order", run=(Attribute("order.id"),)),
        SpanRule(name="SELECT", step="read", run=("parent",)),
    ]
    with RecordingClient(tracer_provider=tracing.provider, flows=False, rules=rules) as client:
        with tracing.tracer.start_as_current_span("POST", attributes={"order.id": "o"}), client.run("refund", "r-1"):
            tracing.tracer.start_span("SELECT").end()
        reads = [(event.flow_key, event.run_id) for event in client.events if event.step_key == "read"]
    assert reads == [("refund", "r-1")] * 2


def test_names_that_hold_ids_do_not_fill_the_memory() -> None:
    alone = Alone(rules=[SpanRule(name=Glob("GET /order/*"), flow="checkout", step="order", run=("trace",))])
    numbers = itertools.count()

    def ask_for_carts() -> None:
        for _ in range(3 * 4096):
            alone.tracer.start_span(f"GET /cart/{next(numbers)}").end()

    assert growth(ask_for_carts) < 500_000, "4096 names are kept, in two places; all of them would be 1.2 MB in each"
    alone.tracer.start_span("GET /order/1").end()
    assert len(alone.events) == 2


@pytest.mark.parametrize(
    ("wanted", "matching"),
    [(True, [True]), (1, [1, 1.0]), ("1", ["1"]), ("true", ["true"]), ([True, 2], [True, 2, 2.0])],
    ids=repr,
)
def test_a_condition_matches_values_of_its_own_type_alone(wanted: Any, matching: list[Any]) -> None:
    alone = Alone(rules=[SpanRule(flow="checkout", step="order", run=(Attribute("id"),), attributes={"x": wanted})])
    values = [True, False, 1, 1.0, 2, 2.0, "1", "true", "True", ""]
    for number, value in enumerate(values):
        alone.tracer.start_span("POST", attributes={"id": str(number), "x": value}).end()
    matched = [values[int(event.run_id)] for event in alone.events if event.is_outcome]
    assert [(type(value), value) for value in matched] == [(type(value), value) for value in matching]
