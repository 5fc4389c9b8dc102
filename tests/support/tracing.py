"""A tracing set-up for tests, and short ways to look at events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from failpath_otel import FailpathSpanProcessor, MemoryExporter, StepEvent


class Provider(TracerProvider):
    """A provider of the SDK that keeps which processors it was given, in ``added``."""

    def __init__(self, **options: Any) -> None:
        self.added: list[SpanProcessor] = []
        super().__init__(**{"shutdown_on_exit": False, **options})

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        self.added.append(span_processor)
        super().add_span_processor(span_processor)


class Tracing:
    """A provider with an exporter in memory."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        options.setdefault("resource", Resource({"service.name": "shop"}))
        self.provider = Provider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def tracer(self) -> Any:
        return self.provider.get_tracer("a-library")

    @property
    def spans(self) -> list[ReadableSpan]:
        """The finished spans, oldest first."""
        return list(self.exporter.get_finished_spans())

    @property
    def span(self) -> ReadableSpan:
        """The one finished span."""
        (span,) = self.spans
        return span

    def named(self, name: str) -> ReadableSpan:
        """The one finished span with this name."""
        (span,) = [span for span in self.spans if span.name == name]
        return span


class Watcher(SpanProcessor):
    """Another processor of the service: keeps the attributes that it saw at each start."""

    def __init__(self) -> None:
        self.at_start: list[dict[str, Any]] = []

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        self.at_start.append(dict(span.attributes or {}))


STEP = {"failpath.flow.slug": "checkout", "failpath.run.id": "1", "failpath.step.key": "charge"}
"""What makes a span of any library a step."""


class Alone:
    """A processor on its own, on a provider of its own."""

    def __init__(self, provider: TracerProvider | None = None, **options: Any) -> None:
        self.exporter = MemoryExporter()
        self.processor = FailpathSpanProcessor(exporter=self.exporter, **options)
        self.provider = provider or TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("a-library")

    @property
    def events(self) -> list[StepEvent]:
        assert self.processor.force_flush(10_000)
        return self.exporter.events


def told(events: Iterable[StepEvent]) -> list[str]:
    """``step:status`` of each event."""
    return [f"{event.step_key}:{event.status}" for event in events]


def ids_are_consistent(events: Iterable[StepEvent]) -> bool:
    """Every id is unique and made of its event's own trace id and span id, which are not zero."""
    events = list(events)
    ids = [event.event_id for event in events]
    expected = [f"{e.trace_id}-{e.span_id}-{'start' if e.status == 'running' else 'end'}" for e in events]
    whole = all(len(e.trace_id or "") == 32 and len(e.span_id or "") == 16 for e in events)
    not_zero = all(int(e.trace_id or "0", 16) and int(e.span_id or "0", 16) for e in events)
    return ids == expected and len(set(ids)) == len(ids) and whole and not_zero
