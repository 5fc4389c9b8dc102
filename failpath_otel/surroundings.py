"""Span rules beside the spans of this process: what is known where a span begins, kept until it ends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.baggage import get_all as entries_of
from opentelemetry.context import Context

from failpath_otel import baggage
from failpath_otel.context import attached_run
from failpath_otel.rules.matching import (
    NOWHERE,
    CompiledRules,
    KnownRun,
    Match,
    Ruled,
    Surroundings,
    decided_at_end,
    decided_at_start,
)

SpanKey = tuple[int, int]
MAX_KEPT: Final = 100_000


class Ruling:
    """The rules of one processor, with what they need to remember of open spans."""

    def __init__(self, rules: CompiledRules) -> None:
        self.rules = rules
        self.possible = rules.possible
        self.asks_parent = rules.asks_parent
        self.runs: dict[SpanKey, KnownRun] = {}
        """The run of each open span that is a step, or lies below one; kept only where a rule asks for the parent's."""
        self.open: dict[SpanKey, tuple[int, Surroundings]] = {}
        """Where spans began of which it is open whether they are steps."""

    def follow(self, span: Any) -> None:
        """A span that begins below one whose run is known is in that run."""
        parent = span.parent
        run = None if parent is None else self.runs.get((parent.trace_id, parent.span_id))
        if run is not None:
            self.enter(_key_of(span), run)

    def enter(self, key: SpanKey, run: KnownRun) -> None:
        """An open span is in this run."""
        if self.asks_parent:
            self.runs[key] = run
            _bound(self.runs)

    def leave(self, key: SpanKey) -> None:
        """A span has ended."""
        self.runs.pop(key, None)
        self.open.pop(key, None)

    def begins(self, span: Any, attributes: Mapping[str, Any], context: Context | None) -> Match | None:
        """The rule and step of a span that begins, where these are certain."""
        possible = self.possible(_scope_of(span), span.name)
        if not possible:
            return None
        surroundings = self._around(span, context) if self.rules.asks_context else NOWHERE
        match, is_open = decided_at_start(possible, _ruled(span, attributes, surroundings))
        if is_open:
            self.open[_key_of(span)] = (os.getpid(), surroundings)
            _bound(self.open)
        return match

    def ends(self, span: Any, attributes: Mapping[str, Any]) -> Match | None:
        """The rule and step of a span that has ended, of which nothing was told so far."""
        key = _key_of(span)
        pid, surroundings = self.open.get(key, (0, None))
        if pid not in (0, os.getpid()):
            return None  # a forked child ends its parent's span, of which the parent will tell
        possible = self.possible(_scope_of(span), span.name)
        if not possible:
            return None
        if surroundings is None:
            # No rule came into question when it began, as for a span that is renamed later.
            surroundings = self._around(span, None) if self.rules.asks_context else NOWHERE
        return decided_at_end(possible, _ruled(span, attributes, surroundings))

    def _around(self, span: Any, context: Context | None) -> Surroundings:
        named = baggage.read(context)
        remote = None if named is None else KnownRun(named.flow_key, named.run_id)
        return Surroundings(_attached(context) or self._above(span) or remote, remote, entries_of(context))

    def _above(self, span: Any) -> KnownRun | None:
        parent = span.parent
        return None if parent is None else self.runs.get((parent.trace_id, parent.span_id))


def _attached(context: Context | None) -> KnownRun | None:
    run: Any = attached_run(context)
    return None if run is None else KnownRun(run.flow_key, run.run_id)


def _ruled(span: Any, attributes: Mapping[str, Any], surroundings: Surroundings) -> Ruled:
    return Ruled(span.kind.name.lower(), f"{span.get_span_context().trace_id:032x}", attributes, surroundings)


def _scope_of(span: Any) -> str:
    scope = span.instrumentation_scope
    return "" if scope is None else scope.name


def _key_of(span: Any) -> SpanKey:
    context = span.get_span_context()
    return context.trace_id, context.span_id


def _bound(kept: dict[SpanKey, Any]) -> None:
    if len(kept) > MAX_KEPT:  # spans that never end
        kept.pop(next(iter(kept)), None)
