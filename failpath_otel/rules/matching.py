"""Rules, compiled: which rule a span matches, and which step of which run that makes it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from failpath_otel.events.text import MAX_ID_CHARS, identifier
from failpath_otel.events.translate import Identity, RunIdentity
from failpath_otel.rules.conditions import Compiled, Verdict, as_subject, text_test
from failpath_otel.rules.outcome import OutcomeRule
from failpath_otel.rules.rule import SpanRule, SpanRules
from failpath_otel.rules.terms import KINDS, Attribute, Baggage, RunSource

MAX_NAMES: Final = 4096
"""Of spans, for which is remembered which rules come into question."""


class StartContext(NamedTuple):
    """What is known where a span begins, beside the span itself."""

    parent: RunIdentity | None = None
    """The run of the step around, or of ``with run:``."""
    remote: RunIdentity | None = None
    """The run that baggage names."""
    baggage: Mapping[str, object] = {}


NO_CONTEXT: Final = StartContext()


@dataclass(frozen=True)
class SpanView:
    """What a span is asked for. ``kind`` is one of `terms.KINDS`, ``trace_id`` hexadecimal digits."""

    kind: str
    trace_id: str
    attributes: Mapping[str, Any]
    start_context: StartContext = NO_CONTEXT


class Match(NamedTuple):
    """A span that is a step by a rule. ``step`` is ``None`` where the rule left it out, or where ``lacking`` says why."""

    rule: CompiledRule
    step: Identity | None
    lacking: str = ""


class CompiledRule:
    """One rule."""

    def __init__(self, rule: SpanRule, number: int) -> None:
        self.rule = rule
        self.number = number
        self.outcome = OutcomeRule(rule)
        self.ignores = rule.ignore
        self._name = None if rule.name is None else text_test(rule.name)
        self._scope = None if rule.scope is None else text_test(rule.scope)
        kinds = (rule.kind,) if isinstance(rule.kind, str) else rule.kind
        self._kinds = frozenset(KINDS if kinds is None else kinds)
        self._conditions = Compiled(rule.attributes)

    def __repr__(self) -> str:
        return f"rule {self.number + 1}" + (f" ({self.rule.description})" if self.rule.description else "")

    @property
    def attribute_names(self) -> frozenset[str]:
        """Every attribute that the rule looks at."""
        sources = (self.rule.flow, self.rule.step, *self.rule.run)
        named = {source.name for source in sources if isinstance(source, Attribute)}
        return frozenset({*self._conditions.names, *self.outcome.names, *named})

    def admits_scope(self, scope: str) -> bool:
        """Whether spans of this instrumentation scope may match."""
        return self._scope is None or self._scope(scope)

    def admits(self, scope: str, name: str) -> bool:
        """Whether a span of this name and scope may match."""
        return (self._name is None or self._name(name)) and self.admits_scope(scope)

    def verdict(self, kind: str, attributes: Mapping[str, Any], *, ended: bool) -> Verdict:
        """What kind and attributes say of a span whose name and scope are admitted."""
        if kind not in self._kinds:
            return Verdict.NO
        return self._conditions.verdict(attributes, ended=ended)

    def named(self, span: SpanView, *, ended: bool) -> Match | None:
        """The step that a span is, or ``None`` where that is open until its end."""
        run_id, flow_of_run = "", ""
        for source in self.rule.run:
            found = self._run(source, span)
            if found is None and isinstance(source, Attribute) and not ended and source.name not in span.attributes:
                return None
            if found is not None:
                flow_of_run, run_id = found
                break
        flow = flow_of_run if self.rule.flow is None else _key(self.rule.flow, span.attributes)
        step = _key(self.rule.step, span.attributes)
        lacking = next(
            (what for what, value in (("run id", run_id), ("flow", flow), ("step key", step)) if not value),
            "",
        )
        if not lacking:
            return Match(self, Identity(flow, run_id, step))
        return Match(self, None, lacking) if ended else None

    def _run(self, source: RunSource, span: SpanView) -> tuple[str, str] | None:
        if source == "trace":
            return ("", span.trace_id) if span.trace_id else None
        if isinstance(source, Attribute):
            value: object = span.attributes.get(source.name)
        elif isinstance(source, Baggage):
            value = _believable(span.start_context.baggage.get(source.name))
        else:
            return self._known(span.start_context.parent if source == "parent" else span.start_context.remote, span)
        run_id = identifier(as_subject(value))
        return ("", run_id) if run_id else None

    def _known(self, run: RunIdentity | None, span: SpanView) -> tuple[str, str] | None:
        """The run, unless it is one of another flow: its id would mean another run there."""
        if run is None or (self.rule.flow is not None and _key(self.rule.flow, span.attributes) != run.flow_key):
            return None
        return run.flow_key, run.run_id


class CompiledRules:
    """Rules in order, made so that a span which matches none is passed over by one look into a dictionary."""

    def __init__(self, rules: SpanRules) -> None:
        self._rules = tuple(CompiledRule(rule, number) for number, rule in enumerate(rules))
        self._by_name: dict[tuple[str, str], tuple[CompiledRule, ...]] = {}
        sources = [source for rule in rules for source in rule.run]
        self.asks_parent = "parent" in sources
        """Whether a run may come from the step around."""
        self.asks_context = any(source in ("parent", "baggage") or isinstance(source, Baggage) for source in sources)
        """Whether a run may come from what is known only where a span begins."""
        self.attribute_names = frozenset(name for rule in self._rules for name in rule.attribute_names)
        """Every attribute that some rule looks at."""

    def __len__(self) -> int:
        return len(self._rules)

    def possible(self, scope: str, name: str) -> tuple[CompiledRule, ...]:
        """The rules that come into question for a span of this name and scope, in order."""
        known = self._by_name.get((scope, name))
        if known is None:
            known = tuple(rule for rule in self._rules if rule.admits(scope, name))
            if len(self._by_name) >= MAX_NAMES:  # names that hold ids: they are no use to remember
                self._by_name.clear()
            self._by_name[scope, name] = known
        return known

    def may_match_scope(self, scope: str) -> bool:
        """Whether any span of this instrumentation scope may match."""
        return any(rule.admits_scope(scope) for rule in self._rules)

    def may_record(self, name: str, kind: str, attributes: Mapping[str, Any]) -> bool:
        """Whether a span that is about to begin may become a step; its scope is not known yet.

        A server's span often gets its name later, so the name is not asked there.
        """
        return any(
            not rule.ignores
            and (kind == "server" or rule.rule.name is None or text_test(rule.rule.name)(name))
            and rule.verdict(kind, attributes, ended=False) is not Verdict.NO
            for rule in self._rules
        )


def decided_at_start(possible: tuple[CompiledRule, ...], span: SpanView) -> tuple[Match | None, bool]:
    """The rule and step of a span that begins, if these are certain; else whether they are open until its end."""
    for rule in possible:
        verdict = rule.verdict(span.kind, span.attributes, ended=False)
        if verdict is Verdict.NO:
            continue
        if verdict is Verdict.OPEN or not (rule.ignores or rule.rule.running):
            return None, True
        if rule.ignores:
            return None, False
        match = rule.named(span, ended=False)
        return match, match is None
    return None, False


def decided_at_end(possible: tuple[CompiledRule, ...], span: SpanView) -> Match | None:
    """The rule that a span which has ended matches, and its step."""
    for rule in possible:
        if rule.verdict(span.kind, span.attributes, ended=True) is Verdict.YES:
            return Match(rule, None) if rule.ignores else rule.named(span, ended=True)
    return None


def _believable(value: object) -> str | None:
    """Baggage comes from whoever calls: what is no id is as good as not there."""
    return value if isinstance(value, str) and len(value) <= MAX_ID_CHARS and value.isprintable() else None


def _key(given: str | Attribute | None, attributes: Mapping[str, Any]) -> str:
    return identifier(as_subject(attributes.get(given.name)) if isinstance(given, Attribute) else given)
