"""Span rules as data: which spans are steps, of which run, and how they ended. `file` reads the same from JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from failpath_otel.errors import ConfigError
from failpath_otel.rules.checked import Fault, check_rule
from failpath_otel.rules.terms import Attribute, Condition, Conditions, Kind, RunSource, Text


@dataclass(frozen=True)
class ErrorWhen:
    """When a step is an error beyond those whose span has the status ERROR, and what its error is called.

    Args:
        when: Conditions on the span's attributes; all of them hold. Empty: only the span's status counts.
        name: The error's name, with ``{attribute}`` for an attribute's value. An exception recorded on the span counts more.
        message: Its message, likewise.
    """

    when: Conditions = field(default_factory=dict[str, Condition])
    name: str | None = None
    message: str | None = None


@dataclass(frozen=True)
class SkipWhen:
    """When a step counts as skipped.

    Args:
        when: Conditions on the span's attributes; all of them hold. Empty: always.
        reason: Why it was skipped, with ``{attribute}`` for an attribute's value.
    """

    when: Conditions = field(default_factory=dict[str, Condition])
    reason: str | None = None


@dataclass(frozen=True)
class SpanRule:
    """Makes steps of the spans that it matches. What is not given matches every span.

    Args:
        name: The span's name: exact, `Glob` or `Regex`.
        kind: One or several of ``internal``, ``server``, ``client``, ``producer``, ``consumer``.
        scope: The name of the instrumentation scope, such as ``opentelemetry.instrumentation.fastapi``; likewise.
        attributes: Conditions on attributes, all of which hold: a value, several values of which one is meant, `Glob`, `Regex`,
            `Present`, `Range`.
        flow: The flow's slug, or the attribute that has it; ``None``: that of the run which ``parent`` or ``baggage`` names.
        step: The step's key, or the attribute that has it.
        run: Where the run id comes from; the first source that has one: an `Attribute`, a `Baggage` entry, ``parent`` (the run
            of the nearest step around, or of ``with run:``), ``baggage`` (the run that came from another service),
            ``trace`` (the trace id).
        metadata: Attributes that become metadata, by name, or as key → attribute.
        error: When the step is an error beyond the span's own status, and what the error is called.
        success: Conditions under which the step succeeded although the span's status is ERROR.
        skipped: When the step counts as skipped.
        ignore: Spans that match are left out, whatever later rules say.
        running: False: the step has no running event, only its outcome.
        description: For readers; warnings name the rule by it.

    Raises:
        ConfigError: A value cannot be used.
    """

    name: Text | None = None
    kind: Kind | Sequence[Kind] | None = None
    scope: Text | None = None
    attributes: Conditions = field(default_factory=dict[str, Condition])
    flow: str | Attribute | None = None
    step: str | Attribute | None = None
    run: Sequence[RunSource] = ()
    metadata: Sequence[str] | Mapping[str, str] = ()
    error: ErrorWhen | None = None
    success: Conditions | None = None
    skipped: SkipWhen | None = None
    ignore: bool = False
    running: bool = True
    description: str = ""

    def __post_init__(self) -> None:
        try:
            check_rule(self)
        except Fault as fault:
            raise ConfigError(f"SpanRule: {fault}") from None


@dataclass(frozen=True)
class SpanRules:
    """Rules in order; of those that match a span the first counts.

    Args:
        rules: The rules.
        path: The file that they come from.
    """

    rules: tuple[SpanRule, ...] = ()
    path: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(self.rules))

    def __iter__(self) -> Iterator[SpanRule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)
