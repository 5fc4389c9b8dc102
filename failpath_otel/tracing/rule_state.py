"""Span rules beside the spans of this process: what is known where a span begins, kept until it ends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from opentelemetry.baggage import get_all as entries_of
from opentelemetry.context import Context

from failpath_otel.events.translate import RunIdentity
from failpath_otel.propagation import baggage
from failpath_otel.propagation.current import attached_run
from failpath_otel.rules.matching import (
    MAX_NAMES,
    NO_CONTEXT,
    CompiledRules,
    Match,
    SpanView,
    StartContext,
    decided_at_end,
    decided_at_start,
)

SpanKey = tuple[int, int]
MAX_OPEN_SPANS: Final = 100_000


class OpenSpan(NamedTuple):
    """What is remembered of an open span."""

    run: RunIdentity | None = None
    """Its own run, or that of the step above it; only where a rule asks for the parent's."""
    pid: int = 0
    start_context: StartContext | None = None
    """Where it began; only where it is open until its end whether it is a step."""


NOTHING: Final = OpenSpan()


class RuleState:
    """The rules of one processor, with what they need to remember of open spans."""

    def __init__(self, rules: CompiledRules) -> None:
        self.rules = rules
        self.unmatched_names: dict[str, object] = {}
        """By the name of spans that match nothing, the scope that they last came from. Most names come from one."""
        self.asks_parent = rules.asks_parent
        self.open_spans: dict[SpanKey, OpenSpan] = {}
        """What is remembered of open spans; of most services' spans nothing."""

    def passes(self, span: Any, scope: Any, name: str) -> bool:
        """Whether a span that begins is none that a rule may match; notes what the next one needs to know of it."""
        if self.rules.possible("" if scope is None else scope.name, name):
            return False
        if self.open_spans:
            self._follow(span)
        if len(self.unmatched_names) >= MAX_NAMES:
            self.unmatched_names.clear()
        self.unmatched_names[name] = scope
        return True

    def enter(self, key: SpanKey, run: RunIdentity) -> None:
        """An open span is in this run."""
        if self.asks_parent:
            self._remember(key, OpenSpan(run))

    def begins(self, span: Any, attributes: Mapping[str, Any], context: Context | None) -> Match | None:
        """The rule and step of a span that begins, where these are certain."""
        if self.open_spans:
            self._follow(span)
        possible = self.rules.possible(_scope_of(span), span.name)
        if not possible:
            return None
        start_context = self._around(span, context) if self.rules.asks_context else NO_CONTEXT
        match, is_open = decided_at_start(possible, _view(span, attributes, start_context))
        if is_open:
            self._remember(_key_of(span), OpenSpan(self._above(span), os.getpid(), start_context))
        return match

    def ends(self, span: Any, attributes: Mapping[str, Any]) -> Match | None:
        """The rule and step of a span that has ended, of which no event was recorded so far."""
        key = _key_of(span)
        _, pid, start_context = self.open_spans.get(key, NOTHING)
        if pid not in (0, os.getpid()):
            return None  # a forked child ends its parent's span, of which the parent will tell
        possible = self.rules.possible(_scope_of(span), span.name)
        if not possible:
            return None
        if start_context is None:
            # No rule came into question when it began, as for a span that is renamed later.
            start_context = self._around(span, None) if self.rules.asks_context else NO_CONTEXT
        return decided_at_end(possible, _view(span, attributes, start_context))

    def _around(self, span: Any, context: Context | None) -> StartContext:
        remote = baggage.read(context)
        return StartContext(_attached(context) or self._above(span) or remote, remote, entries_of(context))

    def _follow(self, span: Any) -> None:
        """A span that begins below one whose run is known is in that run."""
        run = self._above(span)
        if run is not None:
            self.enter(_key_of(span), run)

    def _above(self, span: Any) -> RunIdentity | None:
        parent = span.parent
        return None if parent is None else self.open_spans.get((parent.trace_id, parent.span_id), NOTHING).run

    def _remember(self, key: SpanKey, span: OpenSpan) -> None:
        self.open_spans[key] = span
        if len(self.open_spans) > MAX_OPEN_SPANS:  # spans that never end
            self.open_spans.pop(next(iter(self.open_spans)), None)


def _attached(context: Context | None) -> RunIdentity | None:
    run = attached_run(context)
    return None if run is None else RunIdentity(run.flow_key, run.run_id)


def _view(span: Any, attributes: Mapping[str, Any], start_context: StartContext) -> SpanView:
    return SpanView(span.kind.name.lower(), f"{span.get_span_context().trace_id:032x}", attributes, start_context)


def _scope_of(span: Any) -> str:
    scope = span.instrumentation_scope
    return "" if scope is None else scope.name


def _key_of(span: Any) -> SpanKey:
    context = span.get_span_context()
    return context.trace_id, context.span_id
