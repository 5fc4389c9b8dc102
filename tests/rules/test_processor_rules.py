"""Rules in the process: when `running` is told, whose run it is, and that a service is never harmed."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import baggage
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, ParentBased, SamplingResult
from opentelemetry.trace import SpanKind, Status, StatusCode
from support.delivery import growth
from support.tracing import STEP, Alone, Tracing, told

from failpath_otel import (
    Attribute,
    Baggage,
    ConfigError,
    ErrorWhen,
    FailpathClient,
    FailpathSpanProcessor,
    Glob,
    Range,
    RecordingSampler,
    SkipWhen,
    SpanRule,
    StepError,
)
from failpath_otel.testing import RecordingClient

pytestmark = pytest.mark.usefixtures("each_kind_of_span")

CHECKOUT = SpanRule(name="POST /checkout", flow="checkout", step="order", run=(Attribute("order.id"), "trace"))


def rule(**fields: Any) -> SpanRule:
    return SpanRule(**{"flow": "checkout", "step": "order", "run": ("trace",), **fields})


def runs_of(alone: Alone) -> set[tuple[str, str]]:
    return {(event.flow_key, event.run_id) for event in alone.events}


def test_a_span_that_matches_at_its_start_gives_running_and_its_outcome() -> None:
    alone = Alone(rules=[rule(name="POST /checkout", metadata=["http.route"])])
    span = alone.tracer.start_span("POST /checkout", attributes={"http.route": "/checkout", "user": "u"})
    assert told(alone.events) == ["order:running"]
    span.end()
    start, end = alone.events
    assert start.metadata == end.metadata == {"http.route": "/checkout"}
    assert end.run_id == f"{span.get_span_context().trace_id:032x}"
    assert (end.started_at, end.event_id[:-4]) == (start.timestamp, start.event_id[:-6])


def test_what_is_known_at_the_end_alone_gives_the_outcome_alone() -> None:
    alone = Alone(rules=[rule(attributes={"http.route": "/checkout"})])
    with alone.tracer.start_as_current_span("POST") as span:
        span.set_attribute("http.route", "/checkout")
    with alone.tracer.start_as_current_span("POST"):
        pass
    assert told(alone.events) == ["order:success"]


def test_an_earlier_rule_that_is_open_holds_back_running_and_may_win() -> None:
    alone = Alone(rules=[rule(attributes={"http.route": "/refund"}, step="refund"), rule(name="POST")])
    for route in ("/refund", "/other"):
        with alone.tracer.start_as_current_span("POST") as span:
            assert [event for event in alone.events if event.status == "running"] == []
            span.set_attribute("http.route", route)
    assert told(alone.events) == ["refund:success", "order:success"]


def test_an_order_id_that_comes_late_is_waited_for() -> None:
    alone = Alone(rules=[CHECKOUT])
    with alone.tracer.start_as_current_span("POST /checkout") as span:
        span.set_attribute("order.id", 17)
    assert [(event.status, event.run_id) for event in alone.events] == [("success", "17")]


def test_a_span_that_is_renamed_stays_the_step_that_it_began_as() -> None:
    alone = Alone(rules=[rule(name="POST /a", step="a"), rule(name="POST /b", step="b")])
    with alone.tracer.start_as_current_span("POST /a") as span:
        span.update_name("POST /b")
    with alone.tracer.start_as_current_span("POST") as span:
        span.update_name("POST /b")
    with alone.tracer.start_as_current_span("POST /a") as span:
        span.update_name("anything")
    assert told(alone.events) == ["a:running", "a:success", "b:success", "a:running", "a:success"]


def test_running_false_decides_at_the_end() -> None:
    alone = Alone(rules=[rule(name="POST /a", step="a", running=False), rule(name="POST /b", step="b")])
    with alone.tracer.start_as_current_span("POST /a") as span:
        span.update_name("POST /b")
    assert told(alone.events) == ["b:success"]


def test_the_first_rule_that_matches_counts_and_ignored_spans_are_left_out() -> None:
    alone = Alone(rules=[rule(name="GET /health", ignore=True, flow=None, step=None, run=()), rule(name=Glob("GET *"))])
    for name in ("GET /health", "GET /x"):
        alone.tracer.start_span(name).end()
    assert told(alone.events) == ["order:running", "order:success"]


def test_the_three_attributes_on_a_span_win_over_rules() -> None:
    alone = Alone(rules=[rule(step="by-rule")])
    alone.tracer.start_span("a", attributes=STEP).end()
    with alone.tracer.start_as_current_span("b", attributes={"failpath.step.status": "skipped"}):
        pass
    assert told(alone.events) == ["charge:running", "charge:success", "by-rule:skipped"]


def test_what_the_service_wrote_as_metadata_wins_over_what_a_rule_takes() -> None:
    alone = Alone(rules=[rule(metadata={"plan": "app.plan", "size": "app.size"})], default_metadata={"size": 0, "region": "eu"})
    alone.tracer.start_span("x", attributes={"app.plan": "a", "app.size": 2, "failpath.metadata.plan": "b"}).end()
    assert [event.metadata for event in alone.events] == [{"plan": "b", "size": 2, "region": "eu"}] * 2


def test_a_status_code_makes_an_error_with_a_name_and_a_message() -> None:
    code = "http.response.status_code"
    named = ErrorWhen({code: Range(at_least=500)}, "HTTP {http.response.status_code}", "{http.route} failed")
    alone = Alone(rules=[rule(error=named, success={code: 404})])

    def span(value: int, status: Status | None = None, **attributes: Any) -> StepError | None:
        with alone.tracer.start_as_current_span("x") as span:
            span.set_attributes({code: value, **attributes})
            if status is not None:
                span.set_status(status)
        return alone.events[-1].error

    assert span(503, **{"http.route": "/a"}) == StepError("HTTP 503", "/a failed")
    assert span(503) == StepError("HTTP 503", "http.response.status_code is 503")
    assert span(499) is None
    assert span(404, Status(StatusCode.ERROR)) is None
    assert span(400, Status(StatusCode.ERROR, "bad")) == StepError("HTTP 400", "bad")
    with pytest.raises(KeyError), alone.tracer.start_as_current_span("x") as raising:
        raising.set_attribute(code, 500)
        raise KeyError("k")
    assert alone.events[-1].error == StepError("KeyError", "'k'")


def test_a_step_is_skipped_with_a_reason() -> None:
    alone = Alone(rules=[rule(skipped=SkipWhen({"cache.hit": True}, "from {cache.name}"))])
    alone.tracer.start_span("x", attributes={"cache.hit": True, "cache.name": "redis"}).end()
    with alone.tracer.start_as_current_span("x") as span:
        span.set_attribute("cache.hit", True)
    assert told(alone.events) == ["order:skipped", "order:running", "order:skipped"]
    assert [event.skip_reason for event in alone.events] == ["from redis", None, None]


def test_the_run_comes_from_the_first_source_that_has_one() -> None:
    alone = Alone(rules=[rule(run=("parent", "baggage", Baggage("order"), "trace"))])
    other = baggage.set_baggage("order", "o-1")
    ours = baggage.set_baggage("failpath.flow.slug", "checkout", baggage.set_baggage("failpath.run.id", "r-1", other))
    wrong_flow = baggage.set_baggage("failpath.flow.slug", "refund", ours)
    spans = [alone.tracer.start_span("x", context=context) for context in (ours, other, wrong_flow)]
    plain = alone.tracer.start_span("x")
    assert [event.run_id for event in alone.events] == ["r-1", "o-1", "o-1", f"{plain.get_span_context().trace_id:032x}"]
    for span in spans:
        span.end()


def test_the_parents_run_is_that_of_with_run_or_of_the_step_around(tracing: Tracing) -> None:
    below = SpanRule(name=Glob("SELECT*"), step="read", run=("parent",))
    with RecordingClient(tracer_provider=tracing.provider, flows=False, rules=[below, CHECKOUT]) as client:
        with client.run("refund", "r-2"), tracing.tracer.start_as_current_span("SELECT 1"):
            pass
        with client.run("refund", "r-3").step("pay"), tracing.tracer.start_as_current_span("SELECT 2"):
            pass
        with (
            tracing.tracer.start_as_current_span("POST /checkout", attributes={"order.id": "o"}),
            tracing.tracer.start_as_current_span("between"),
            tracing.tracer.start_as_current_span("SELECT 3"),
        ):
            pass
        tracing.tracer.start_span("SELECT 4").end()
        reads = [(event.flow_key, event.run_id) for event in client.events if event.step_key == "read" and event.is_outcome]
    assert reads == [("refund", "r-2"), ("refund", "r-3"), ("checkout", "o")]


def test_nothing_is_kept_of_spans_that_have_ended() -> None:
    alone = Alone(rules=[CHECKOUT, SpanRule(name="SELECT", step="read", run=("parent",), attributes={"late": 1})])

    def pass_through() -> None:
        for number in range(2000):
            with (
                alone.tracer.start_as_current_span("POST /checkout", attributes={"order.id": number}),
                alone.tracer.start_as_current_span("between"),
                alone.tracer.start_as_current_span("SELECT"),
            ):
                pass
        assert len(alone.events) == 4000
        alone.exporter.events.clear()

    assert growth(pass_through) < 150_000


def test_a_match_without_a_run_id_is_no_step_and_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    alone = Alone(rules=[rule(run=(Attribute("order.id"),), description="orders")])
    for value in ({}, {"order.id": ""}, {"order.id": [1, 2]}):
        alone.tracer.start_span("x", attributes=value).end()
    assert alone.events == []
    assert caplog.messages == ["a span matches rule 1 (orders), but has no run id: it is no step"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from 3.12 on, of a fork beside threads
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_that_ends_its_parents_span_tells_nothing() -> None:
    alone = Alone(rules=[CHECKOUT])
    span = alone.tracer.start_span("POST /checkout")
    pid = os.fork()
    if pid == 0:
        span.set_attribute("order.id", 1)
        span.end()
        os._exit(len(alone.exporter.events) + alone.processor.sink.stats().pending if alone.processor.sink else 9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# Where rules come from


def write(folder: Path, text: str) -> Path:
    (folder / ".failpath").mkdir(exist_ok=True)
    path = folder / ".failpath" / "spans.json"
    path.write_text(text, encoding="utf-8")
    return path


FILE = json.dumps({"version": 1, "rules": [{"name": "x", "flow": "f", "step": "s", "run": ["trace"]}]})


def has_rules(**options: Any) -> bool:
    """Whether a processor goes by the rule of `FILE`."""
    alone = Alone(**options)
    alone.tracer.start_span("x").end()
    return told(alone.events) == ["s:running", "s:success"]


def test_rules_come_from_the_argument_the_environment_or_the_nearest_file(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert not has_rules()
    path = write(tmp_path, FILE)
    assert has_rules()
    assert not has_rules(rules=False)
    monkeypatch.setenv("FAILPATH_RULES", "false")
    assert not has_rules()
    monkeypatch.setenv("FAILPATH_RULES", str(path))
    monkeypatch.chdir("/")
    assert has_rules()


def test_a_broken_file_that_code_names_stops_construction(tmp_path: Path) -> None:
    path = write(tmp_path, '{"version": 1,\n"rules": [{}]}')
    for make in (FailpathClient, FailpathSpanProcessor):
        with pytest.raises(ConfigError, match=r"spans\.json:2: \$\.rules\[0\]\.step is missing"):
            make(rules=path, exporter="memory")
    with pytest.raises(ConfigError, match="rules must be the path"):
        FailpathClient(rules=5, exporter="memory")  # type: ignore[arg-type]


def test_a_broken_file_that_is_found_or_named_by_the_environment_is_warned_of(
    tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    path = write(tmp_path, '{"version": 1,\n"rules": [{}]}')
    monkeypatch.setenv("FAILPATH_RULES", str(path))
    alone = Alone()
    alone.tracer.start_span("x").end()
    alone.tracer.start_span("x", attributes=STEP).end()
    assert told(alone.events) == ["charge:running", "charge:success"]
    (message,) = caplog.messages
    assert f"{path}:2: $.rules[0].step is missing" in message


# Spans that are not sampled


def test_a_span_that_is_dropped_is_not_seen_unless_the_sampler_is_wrapped() -> None:
    dropping = Alone(TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False), rules=[CHECKOUT])
    dropping.tracer.start_span("POST /checkout").end()
    assert dropping.events == []
    sampler = RecordingSampler(ParentBased(ALWAYS_OFF), rules=[CHECKOUT])
    tracing = Tracing(sampler=sampler)
    recording = Alone(tracing.provider, rules=[CHECKOUT])
    span = recording.tracer.start_span("POST /checkout", attributes={"order.id": "1"})
    assert (span.is_recording(), span.get_span_context().trace_flags.sampled) == (True, False)
    span.end()
    other = recording.tracer.start_span("GET /x")
    assert not other.is_recording()
    assert [event.run_id for event in recording.events] == ["1", "1"]
    assert tracing.spans == []
    assert sampler.get_description().startswith("RecordingSampler(ParentBased{")


def test_the_wrapped_sampler_keeps_attributes_trace_state_and_every_other_decision() -> None:
    class Inner(type(ALWAYS_OFF)):  # type: ignore[misc]
        def __init__(self, decision: Decision) -> None:
            self.decision = decision

        def should_sample(self, *args: Any, **more: Any) -> SamplingResult:
            return SamplingResult(self.decision, {"sampler": "x"}, "state")  # type: ignore[arg-type]

    ask = (None, 1, "POST", SpanKind.SERVER, {"order.id": "1"})
    dropped = RecordingSampler(Inner(Decision.DROP), rules=[rule(kind="server")]).should_sample(*ask)
    assert dropped.decision is Decision.RECORD_ONLY
    assert dict(dropped.attributes) == {"order.id": "1", "sampler": "x"}
    assert dropped.trace_state == "state"
    assert RecordingSampler(Inner(Decision.DROP), rules=[rule(kind="client")]).should_sample(*ask).decision is Decision.DROP
    kept = RecordingSampler(Inner(Decision.RECORD_AND_SAMPLE), rules=[rule()]).should_sample(*ask)
    assert dict(kept.attributes) == {"sampler": "x"}


def test_record_unsampled_wraps_the_sampler_of_the_provider() -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    with RecordingClient(tracer_provider=provider, flows=False, rules=[CHECKOUT], record_unsampled=True) as client:
        provider.get_tracer("lib").start_span("POST /checkout", attributes={"order.id": "1"}).end()
        assert told(client.events) == ["order:running", "order:success"]
