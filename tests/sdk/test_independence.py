"""However tracing is set up: each step gives exactly its events, once, with ids that fit together."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, NoOpTracerProvider, SpanContext, TraceFlags
from support.tracing import Tracing, ids_are_consistent, told

from failpath_otel import FailpathClient, MemoryExporter
from failpath_otel.testing import RecordingClient

REMOTE = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(0))
STORY = "whole:success block:success inner:success fails:error(ValueError) skipped:skipped by-hand:success"


def _go_through(client: FailpathClient) -> None:
    """Every form of a step, within a span of an unsampled caller and without one."""
    run = client.run("flow", "1")
    run.step("whole", lambda: None)
    with run.step("block"):
        run.step("inner", lambda: None)
    with pytest.raises(ValueError, match="bad"), run.step("fails"):
        raise ValueError("bad")
    run.skip("skipped")
    client.record_step(flow_key="flow", run_id="1", step_key="by-hand", status="success")


def _assert_complete(client: RecordingClient) -> None:
    client.assert_story("flow", STORY)
    assert len(client.events) == 4 * 2 + 2
    assert ids_are_consistent(client.events)
    by_step: dict[str, set[tuple[Any, Any]]] = {}
    for event in client.events:
        by_step.setdefault(event.step_key, set()).add((event.trace_id, event.span_id))
    assert all(len(ids) == 1 for ids in by_step.values())
    spans = {event.span_id for event in client.events}
    assert len(spans) == len(by_step)


class Failing(Sampler):
    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        raise RuntimeError("sampler")

    def get_description(self) -> str:
        return "failing"


class Raises(SpanProcessor):
    def __init__(self, where: str) -> None:
        self._where = where

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self._where in ("start", "both"):
            raise RuntimeError("on_start")

    def on_end(self, span: Any) -> None:
        if self._where in ("end", "both"):
            raise RuntimeError("on_end")


class NoTracer(TracerProvider):
    def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("get_tracer")


class TakesNone:
    """ddtrace's kind: tracers, and no processors."""

    def __init__(self) -> None:
        self._inner = TracerProvider(shutdown_on_exit=False)

    def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
        return self._inner.get_tracer(*args, **kwargs)


class Refuses(TracerProvider):
    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        raise RuntimeError("no more processors")


class Unhashable(TracerProvider):
    __hash__ = None  # type: ignore[assignment]


def _shut_down() -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.shutdown()
    return provider


def _with(processor: SpanProcessor) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


PROVIDERS: dict[str, Callable[[], Any]] = {
    "sampled": lambda: TracerProvider(shutdown_on_exit=False),
    "always off": lambda: TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False),
    "ratio 0": lambda: TracerProvider(sampler=TraceIdRatioBased(0), shutdown_on_exit=False),
    "ratio 0.5": lambda: TracerProvider(sampler=ParentBased(TraceIdRatioBased(0.5)), shutdown_on_exit=False),
    "sampler raises": lambda: TracerProvider(sampler=Failing(), shutdown_on_exit=False),
    "no-op": NoOpTracerProvider,
    "proxy": trace.ProxyTracerProvider,
    "takes no processors": TakesNone,
    "refuses processors": lambda: Refuses(shutdown_on_exit=False),
    "unhashable": lambda: Unhashable(shutdown_on_exit=False),
    "get_tracer raises": lambda: NoTracer(shutdown_on_exit=False),
    "shut down": _shut_down,
    "on_start raises": lambda: _with(Raises("start")),
    "on_end raises": lambda: _with(Raises("end")),
    "both raise": lambda: _with(Raises("both")),
}


@pytest.mark.parametrize("caller", ["none", "unsampled remote", "recording"])
@pytest.mark.parametrize("kind", PROVIDERS)
def test_each_step_gives_its_events_once_with_a_given_provider(kind: str, caller: str) -> None:
    client = RecordingClient(tracer_provider=PROVIDERS[kind](), flows=False)
    parents = {
        "none": trace.INVALID_SPAN,
        "unsampled remote": NonRecordingSpan(REMOTE),
        "recording": TracerProvider(shutdown_on_exit=False).get_tracer("other").start_span("request"),
    }
    parent = parents[caller]
    with trace.use_span(parent):
        _go_through(client)
    _assert_complete(client)
    if caller != "none":
        # Whatever becomes of the spans, the events are told under the caller's trace.
        assert {event.trace_id for event in client.events} == {f"{parent.get_span_context().trace_id:032x}"}


@pytest.mark.parametrize("kind", [kind for kind in PROVIDERS if kind != "proxy"])  # the proxy is there without being set
def test_each_step_gives_its_events_once_with_a_global_provider(kind: str, no_global_provider: None) -> None:
    trace.set_tracer_provider(PROVIDERS[kind]())
    client = RecordingClient(flows=False)
    _go_through(client)
    _assert_complete(client)


def test_a_disabled_sdk_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    client = RecordingClient(tracer_provider=TracerProvider(shutdown_on_exit=False), flows=False)
    with trace.use_span(NonRecordingSpan(REMOTE)):
        _go_through(client)
    _assert_complete(client)


def test_without_a_provider_each_step_gives_its_events_once(no_global_provider: None) -> None:
    client = RecordingClient(flows=False)
    _go_through(client)
    _assert_complete(client)


def test_without_an_sdk_ids_do_not_follow_a_seed_of_the_application(no_global_provider: None) -> None:
    """Ids that come again would make one event of two."""
    import random

    client = RecordingClient(flows=False)
    for _ in range(2):
        random.seed(42)
        client.run("flow").step("train", lambda: None)
    assert ids_are_consistent(client.events)


def test_a_provider_that_comes_late_is_used_and_attached(no_global_provider: None) -> None:
    client = RecordingClient(flows=False)
    client.run("flow", "early").step("whole", lambda: None)
    tracing = Tracing()
    trace.set_tracer_provider(tracing.provider)
    run = client.run("flow", "late")
    _foreign(tracing, "late")  # no step of ours came yet
    run.step("whole", lambda: None)
    assert [span.name for span in tracing.spans] == ["foreign", "flow/whole"]
    own = ["whole:running", "whole:success"]
    assert told(client.events) == [*own, "foreign:running", "foreign:success", *own]
    assert ids_are_consistent(client.events)


def test_a_step_that_is_open_while_the_provider_comes_ends_once(no_global_provider: None) -> None:
    client = RecordingClient(flows=False)
    tracing = Tracing()
    with client.run("flow", "1").step("outer"):
        trace.set_tracer_provider(tracing.provider)
        client.run("flow", "1").step("inner", lambda: None)
    assert client.story("flow") == "outer:success inner:success"
    assert [span.name for span in tracing.spans] == ["flow/inner"]
    assert ids_are_consistent(client.events)


def test_a_provider_that_is_replaced_and_comes_back_is_attached_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Tracing(), Tracing()
    client = RecordingClient(flows=False)
    for tracing in (first, second, first):
        monkeypatch.setattr(trace, "get_tracer_provider", lambda provider=tracing.provider: provider)
        client.run("flow", "1").step("whole", lambda: None)
        _foreign(tracing, "1")
    assert told(client.events) == ["whole:running", "whole:success", "foreign:running", "foreign:success"] * 3
    assert ids_are_consistent(client.events)
    assert (len(first.spans), len(second.spans)) == (4, 2)


def test_a_provider_that_raises_after_another_does_not_leave_the_others_tracer_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = Tracing()
    client = RecordingClient(flows=False)
    for provider in (first.provider, NoTracer(shutdown_on_exit=False), first.provider):
        monkeypatch.setattr(trace, "get_tracer_provider", lambda provider=provider: provider)
        client.run("flow", "1").step("whole", lambda: None)
    assert told(client.events) == ["whole:running", "whole:success"] * 3
    assert len(first.spans) == 2


def test_a_provider_shut_down_while_the_client_lives_changes_nothing(client: RecordingClient, tracing: Tracing) -> None:
    with client.run("flow", "before").step("open"):
        tracing.provider.shutdown()
    _go_through(client)
    client.assert_story("flow", "open:success", "before")
    client.assert_story("flow", STORY, "1")
    assert ids_are_consistent(client.events)


def test_two_providers_at_once_each_have_their_client() -> None:
    tracings = [Tracing(), Tracing()]
    clients = [RecordingClient(tracer_provider=tracing.provider, flows=False) for tracing in tracings]
    clients[0].run("flow", "0").step("outer", lambda: clients[1].run("flow", "1").step("inner", lambda: None))
    assert [told(client.events) for client in clients] == [
        ["outer:running", "outer:success"],
        ["inner:running", "inner:success"],
    ]
    assert [[span.name for span in tracing.spans] for tracing in tracings] == [["flow/outer"], ["flow/inner"]]


def test_where_the_span_cannot_be_opened_children_stay_below_the_caller(tracing: Tracing) -> None:
    client = RecordingClient(tracer_provider=TracerProvider(sampler=Failing(), shutdown_on_exit=False), flows=False)
    query = tracing.tracer.start_as_current_span("query")
    with tracing.tracer.start_as_current_span("request") as request, client.run("flow", "1").step("whole"), query:
        pass
    parent = tracing.named("query").parent
    assert parent is not None
    assert parent.span_id == request.get_span_context().span_id


def test_the_service_name_is_known_where_the_span_is_sampled_out() -> None:
    tracing = Tracing(sampler=ALWAYS_OFF)
    client = RecordingClient(tracer_provider=tracing.provider, flows=False)
    _go_through(client)
    assert {event.service for event in client.events} == {"shop"}


def test_with_background_delivery_the_same_holds() -> None:
    exporter = MemoryExporter()
    provider = TracerProvider(sampler=TraceIdRatioBased(0.5), shutdown_on_exit=False)
    with FailpathClient(exporter=exporter, tracer_provider=provider, flows=False) as client:
        for number in range(200):
            client.run("flow", number).step("whole", lambda: None)
        assert client.flush().sent == 400
    assert ids_are_consistent(exporter.events)


def test_a_span_processor_of_others_sees_our_spans_like_any_other(client: RecordingClient, tracing: Tracing) -> None:
    seen: list[str] = []

    class Names(SpanProcessor):
        def on_start(self, span: Span, parent_context: Any = None) -> None:
            seen.append(span.name)

    tracing.provider.add_span_processor(Names())
    _go_through(client)
    assert seen == ["flow/whole", "flow/block", "flow/inner", "flow/fails", "flow/skipped", "flow/by-hand"]


class Proxy:
    """A provider of logfire's kind: it cannot be hashed, and puts another provider behind itself when configured again."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider

    def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
        return self.provider.get_tracer(*args, **kwargs)

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        self.provider.add_span_processor(span_processor)


def test_a_proxy_that_puts_another_provider_behind_itself_is_followed() -> None:
    first, second = Tracing(), Tracing()
    proxy: Any = Proxy(first.provider)
    client = RecordingClient(tracer_provider=proxy, flows=False)
    for tracing in (first, second, second, first):
        proxy.provider = tracing.provider
        client.run("flow", "1").step("whole", lambda: None)
        _foreign(tracing, "1")
    assert told(client.events) == ["whole:running", "whole:success", "foreign:running", "foreign:success"] * 4
    assert ids_are_consistent(client.events)
    assert (len(first.spans), len(second.spans)) == (4, 4)


def test_logfires_proxy_provider_gives_each_event_once() -> None:
    """In a process of its own: logfire sets the global provider. The extra `integrations` has logfire."""
    pytest.importorskip("logfire", reason="logfire is not installed; the extra `integrations` has it")
    script = """
        import logfire
        from failpath_otel.testing import RecordingClient

        client = RecordingClient(flows=False)            # before logfire is configured
        client.run("flow", "1").step("early", lambda: None)
        logfire.configure(send_to_logfire=False, console=False)
        run = client.run("flow", "1")
        run.step("whole", lambda: None)

        def foreign(key):
            attributes = {"failpath.flow.slug": "flow", "failpath.run.id": "1", "failpath.step.key": key}
            with logfire.span("foreign", **attributes):
                pass

        with logfire.span("request"):
            run.step("inner", lambda: None)
        foreign("foreign")
        logfire.configure(send_to_logfire=False, console=False, service_name="again")  # puts another behind its proxy
        run.step("later", lambda: None)
        foreign("foreign-later")
        print(client.story("flow"))
        print(len(client.events), len({event.event_id for event in client.events}))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "early:success whole:success inner:success foreign:success later:success foreign-later:success",
        "12 12",
    ]


def _foreign(tracing: Tracing, run_id: str) -> None:
    attributes = {"failpath.flow.slug": "flow", "failpath.run.id": run_id, "failpath.step.key": "foreign"}
    tracing.tracer.start_span("foreign", attributes=attributes).end()
