"""Span rules behind a Collector: spans of one body that are steps by a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple, Protocol

from failpath_otel.errors import EventError
from failpath_otel.events import semconv
from failpath_otel.events.translate import RunIdentity, span_ended
from failpath_otel.rules import matching
from failpath_otel.rules.matching import CompiledRule, CompiledRules, Match, StartContext, decided_at_end
from failpath_otel.server.otlp.item import FOREIGN, OpenedSpan, Passed, Reading

MAX_DEPTH: Final = 64
"""How many spans are climbed to find the run around."""

_ATTRIBUTE_OF: Final = {"flow": semconv.FLOW_SLUG, "run id": semconv.RUN_ID, "step key": semconv.STEP_KEY}
_SpanKey = tuple[str, str]
_Reader = Callable[[bytes, "str | None"], "Reading | None"]


class Encoding(Protocol):
    """JSON or protobuf."""

    def scope_name(self, raw: bytes) -> str:
        """The name of an encoded scope."""
        ...

    def open_span(self, raw: bytes, wanted: frozenset[str]) -> OpenedSpan:
        """An encoded span as rules look at it."""
        ...


class _Waiting(NamedTuple):
    """A span that matches a rule by its name, and whose run may be that of another span of the body."""

    span: OpenedSpan
    possible: tuple[CompiledRule, ...]
    service: str | None
    plain: Reading


class BodyRules:
    """One body. Spans with the three attributes are read as ever; the others are put to the rules.

    Where a rule asks for the run of the parent, spans wait until the whole body is read: a parent ends, and so comes, after its
    children. A parent in another body is not known here.
    """

    def __init__(self, rules: CompiledRules, encoding: Encoding) -> None:
        self._rules = rules
        self._encoding = encoding
        self._runs: dict[_SpanKey, RunIdentity] = {}
        self._above: dict[_SpanKey, str] = {}
        self._waiting: list[_Waiting] = []
        self._by_key: dict[_SpanKey, _Waiting] = {}
        # By the object: a broken sender may give one id to several spans.
        self._matches: dict[int, Match | None] = {}

    def reader(self, raw_scope: bytes, read: _Reader) -> _Reader:
        """Reads the spans of one scope; gives ``None`` for one that waits."""
        scope = self._encoding.scope_name(raw_scope)
        if not self._rules.asks_parent and not self._rules.may_match_scope(scope):
            return read

        def read_by_rules(raw: bytes, service: str | None) -> Reading | None:
            plain = read(raw, service)
            if isinstance(plain, Passed):
                return self._put(raw, scope, service, plain)
            if plain is not None and self._rules.asks_parent:
                self._runs[plain.trace_id or "", plain.span_id or ""] = RunIdentity(plain.flow_key, plain.run_id)
            return plain

        return read_by_rules

    def waiting(self) -> Iterator[tuple[str | None, Callable[[], Reading]]]:
        """What waits, with its service. Call it when the whole body is read."""
        for one in self._waiting:
            yield one.service, partial(self._settled, one)

    def _put(self, raw: bytes, scope: str, service: str | None, plain: Reading) -> Reading | None:
        try:
            span = self._encoding.open_span(raw, self._rules.attribute_names)
        except EventError:
            return plain  # no rule can match what cannot be read, and so it stays what it was
        key = (span.trace_id, span.span_id)
        if self._rules.asks_parent and span.parent_span_id:
            self._above[key] = span.parent_span_id
        possible = self._rules.possible(scope, span.name)
        if not possible:
            return plain
        one = _Waiting(span, possible, service, plain)
        if self._rules.asks_parent:
            self._waiting.append(one)
            self._by_key[key] = one
            return None
        return _reading(one, _match(one, StartContext()))

    def _settled(self, one: _Waiting) -> Reading:
        return _reading(one, self._match_of((one.span.trace_id, one.span.span_id), one, 0))

    def _match_of(self, key: _SpanKey, one: _Waiting, depth: int) -> Match | None:
        if id(one) not in self._matches:
            self._matches[id(one)] = None  # a span that is above itself is in no run by that
            self._matches[id(one)] = _match(one, StartContext(parent=self._run_above(key, depth)))
        return self._matches[id(one)]

    def _run_above(self, key: _SpanKey, depth: int) -> RunIdentity | None:
        """The run of the nearest step around."""
        trace_id = key[0]
        for climbed in range(depth + 1, MAX_DEPTH):
            above = self._above.get(key)
            if above is None:
                return None
            key = (trace_id, above)
            if key in self._runs:
                return self._runs[key]
            one = self._by_key.get(key)
            match = None if one is None else self._match_of(key, one, climbed)
            if match is not None and match.step is not None:
                return RunIdentity(match.step.flow_key, match.step.run_id)
        return None


def _match(one: _Waiting, start_context: StartContext) -> Match | None:
    span = one.span
    return decided_at_end(one.possible, matching.SpanView(span.kind, span.trace_id, span.attributes, start_context))


def _reading(one: _Waiting, match: Match | None) -> Reading:
    if match is None:
        return one.plain
    if match.step is None:
        return Passed((_ATTRIBUTE_OF[match.lacking],)) if match.lacking else FOREIGN
    return span_ended(match.step, match.rule.outcome.ended(one.span.facts(one.service)))
