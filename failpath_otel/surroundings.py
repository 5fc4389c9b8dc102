"""Span rules beside the spans of this process: what is known where a span begins, kept until it ends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from opentelemetry.baggage import get_all as entries_of
from opentelemetry.context import Context

from failpath_otel import baggage
from failpath_otel.context import attached_run
from failpath_otel.rules.matching import (
    MAX_NAMES,
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


class Kept(NamedTuple):
    """What is remembered of an open span."""

    run: KnownRun | None = None
    """Its own run, or that of the step above it; only where a rule asks for the parent's."""
    pid: int = 0
    surroundings: Surroundings | None = None
    """Where it began; only where it is open until its end whether it is a step."""


NOTHING: Final = Kept()


class Ruling:
    """The rules of one processor, with what they need to remember of open spans."""

    def __init__(self, rules: CompiledRules) -> None:
        self.rules = rules
        self.quiet: dict[str, object] = {}
        """By the name of spans that match nothing, the scope that they last came from. Most names come from one."""
        self.asks_parent = rules.asks_parent
        self.kept: dict[SpanKey, Kept] = {}
        """What is remembered of open spans; of most services' spans nothing."""

    def passes(self, span: Any, scope: Any, name: str) -> bool:
        """Whether a span that begins is none that a rule may match; notes what the next one needs to know of it."""
        if self.kept:
            self._follow(span)
        if self.rules.possible("" if scope is None else scope.name, name):
            return False
        if len(self.quiet) >= MAX_NAMES:
            self.quiet.clear()
        self.quiet[name] = scope
        return True

    def enter(self, key: SpanKey, run: KnownRun) -> None:
        """An open span is in this run."""
        if self.asks_parent:
            self._keep(key, Kept(run))

    def begins(self, span: Any, attributes: Mapping[str, Any], context: Context | None) -> Match | None:
        """The rule and step of a span that begins, where these are certain."""
        possible = self.rules.possible(_scope_of(span), span.name)
        if not possible:
            return None
        surroundings = self._around(span, context) if self.rules.asks_context else NOWHERE
        match, is_open = decided_at_start(possible, _ruled(span, attributes, surroundings))
        if is_open:
            self._keep(_key_of(span), Kept(self._above(span), os.getpid(), surroundings))
        return match

    def ends(self, span: Any, attributes: Mapping[str, Any]) -> Match | None:
        """The rule and step of a span that has ended, of which nothing was told so far."""
        key = _key_of(span)
        _, pid, surroundings = self.kept.get(key, NOTHING)
        if pid not in (0, os.getpid()):
            return None  # a forked child ends its parent's span, of which the parent will tell
        possible = self.rules.possible(_scope_of(span), span.name)
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

    def _follow(self, span: Any) -> None:
        """A span that begins below one whose run is known is in that run."""
        run = self._above(span)
        if run is not None:
            self.enter(_key_of(span), run)

    def _above(self, span: Any) -> KnownRun | None:
        parent = span.parent
        return None if parent is None else self.kept.get((parent.trace_id, parent.span_id), NOTHING).run

    def _keep(self, key: SpanKey, kept: Kept) -> None:
        self.kept[key] = kept
        if len(self.kept) > MAX_KEPT:  # spans that never end
            self.kept.pop(next(iter(self.kept)), None)


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
