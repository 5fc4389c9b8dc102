"""Whether a rule makes sense, and the place of what does not. The file's reader and `SpanRule` itself ask here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeGuard

from failpath_otel.events.text import MAX_ID_CHARS
from failpath_otel.nearest import nearest
from failpath_otel.rules.terms import KINDS, Attribute, Baggage, Glob, Present, Range, Regex

Place = tuple[str | int, ...]
"""Keys and positions that lead to a value."""

RUN_WORDS: Final = ("parent", "baggage", "trace")


class Fault(Exception):  # noqa: N818 - it is made into a ConfigError, which says where
    """A value that cannot be used; ``place`` leads to it."""

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(reason)
        self.place = place
        self.reason = reason

    def __str__(self) -> str:
        return f"{shown(self.place)} {self.reason}" if self.place else self.reason


def shown(place: Place) -> str:
    """The place as a JSON path without its root: ``rules[0].attributes["http.route"]``."""
    parts: list[str] = []
    for key in place:
        if isinstance(key, int):
            parts.append(f"[{key}]")
        elif key.isidentifier():
            parts.append(f".{key}" if parts else key)
        else:
            parts.append(f'["{key}"]')
    return "".join(parts)


def is_sequence(value: Any) -> TypeGuard[Sequence[Any]]:
    """A list or a tuple, and no text."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def is_mapping(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    """What has keys and values."""
    return isinstance(value, Mapping)


def check_rule(rule: Any) -> None:
    """Raises a `Fault` for the first value that cannot be used; ``rule`` is a `SpanRule`."""
    for field in ("name", "scope"):
        if getattr(rule, field) is not None:
            _check_text((field,), getattr(rule, field))
    _check_kind(rule.kind)
    _check_conditions(("attributes",), rule.attributes)
    for field in ("ignore", "running"):
        if not isinstance(getattr(rule, field), bool):
            raise Fault((field,), f"must be true or false, got {getattr(rule, field)!r}")
    if rule.ignore:
        _check_alone(rule)
        return
    _check_naming(rule)
    _check_metadata(rule.metadata)
    for field in ("error", "skipped"):
        if getattr(rule, field) is not None and not hasattr(getattr(rule, field), "when"):
            raise Fault(
                (field,), f"must be {'an ErrorWhen' if field == 'error' else 'a SkipWhen'}, got {getattr(rule, field)!r}"
            )
    if rule.error is not None:
        _check_conditions(("error", "when"), rule.error.when)
        _check_template(("error", "name"), rule.error.name)
        _check_template(("error", "message"), rule.error.message)
    if rule.success is not None:
        _check_conditions(("success",), rule.success)
        if not rule.success:
            raise Fault(("success",), "must hold at least one condition")
    if rule.skipped is not None:
        _check_conditions(("skipped", "when"), rule.skipped.when)
        _check_template(("skipped", "reason"), rule.skipped.reason)


def _check_alone(rule: Any) -> None:
    for field in ("flow", "step", "run", "metadata", "error", "success", "skipped"):
        if getattr(rule, field):
            raise Fault((field,), "has no meaning in a rule with ignore, which leaves its spans out")


def _check_naming(rule: Any) -> None:
    for field in ("flow", "step"):
        value = getattr(rule, field)
        if isinstance(value, Attribute):
            _check_name((field, "attribute"), value.name)
        elif value is not None and not (isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARS):
            raise Fault((field,), f"must be text of 1 to {MAX_ID_CHARS} characters or an attribute, got {value!r}")
    if rule.step is None:
        raise Fault(("step",), "is missing: a step's key, or the attribute that has it")
    sources: Any = rule.run
    if not is_sequence(sources) or not sources:
        raise Fault(("run",), f"must be a list of at least one source of the run id, got {sources!r}")
    for position, source in enumerate(sources):
        _check_source(("run", position), source)
        if rule.flow is None and source not in ("parent", "baggage"):
            raise Fault(
                ("flow",), 'is missing; only a rule whose runs are all from "parent" or "baggage" has its flow from there'
            )


def _check_source(place: Place, source: Any) -> None:
    if isinstance(source, Attribute | Baggage):
        _check_name((*place, type(source).__name__.lower()), source.name)
    elif source not in RUN_WORDS:
        raise Fault(place, f"must be one of {', '.join(RUN_WORDS)}, an attribute or a baggage entry, got {source!r}")


def _check_kind(kind: Any) -> None:
    several = kind is not None and not isinstance(kind, str)
    kinds: Any = kind if several else () if kind is None else (kind,)
    if not is_sequence(kinds) or (several and not kinds):
        raise Fault(("kind",), f"must be one or several of {', '.join(KINDS)}, got {kind!r}")
    for position, one in enumerate(kinds):
        if one not in KINDS:
            close = nearest(one, KINDS) if isinstance(one, str) else None
            hint = f"; did you mean {close}?" if close else ""
            raise Fault(("kind", position) if several else ("kind",), f"must be one of {', '.join(KINDS)}, got {one!r}{hint}")


def _check_metadata(metadata: Any) -> None:
    if is_mapping(metadata):
        for key, name in metadata.items():
            _check_name(("metadata",), key)
            _check_name(("metadata", key), name)
    elif is_sequence(metadata):
        for position, name in enumerate(metadata):
            _check_name(("metadata", position), name)
    else:
        raise Fault(("metadata",), f"must be a list of attributes, or metadata keys with attributes, got {metadata!r}")


def _check_conditions(place: Place, conditions: Any) -> None:
    if not is_mapping(conditions):
        raise Fault(place, f"must hold attributes with conditions, got {conditions!r}")
    for name, condition in conditions.items():
        _check_name(place, name)
        _check_condition((*place, name), condition)


def _check_condition(place: Place, condition: Any) -> None:
    if isinstance(condition, Glob | Regex):
        _check_text(place, condition)
    elif isinstance(condition, Present):
        expected: Any = condition.expected
        if not isinstance(expected, bool):
            raise Fault((*place, "present"), f"must be true or false, got {condition.expected!r}")
    elif isinstance(condition, Range):
        _check_range(place, condition)
    elif is_sequence(condition):
        if not condition:
            raise Fault(place, "must hold at least one value")
        for position, value in enumerate(condition):
            _check_scalar((*place, position), value)
    else:
        _check_scalar(place, condition)


def _check_range(place: Place, bounds: Range) -> None:
    for key, bound in (("at_least", bounds.at_least), ("at_most", bounds.at_most)):
        if bound is not None and (isinstance(bound, bool) or not _is_number(bound)):
            raise Fault((*place, key), f"must be a number, got {bound!r}")
    if bounds.at_least is None and bounds.at_most is None:
        raise Fault(place, "must have at_least, at_most, or both")
    if bounds.at_least is not None and bounds.at_most is not None and bounds.at_least > bounds.at_most:
        raise Fault(place, f"can never hold: at least {bounds.at_least:g} and at most {bounds.at_most:g}")


def _check_scalar(place: Place, value: Any) -> None:
    if not isinstance(value, str | bool) and not _is_number(value):
        raise Fault(place, f"must be text, a number, true or false, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _check_text(place: Place, text: Any) -> None:
    if isinstance(text, Glob):
        pattern: Any = text.pattern
        if not isinstance(pattern, str) or not pattern:
            raise Fault((*place, "glob"), f"must be text that is not empty, got {text.pattern!r}")
    elif isinstance(text, Regex):
        try:
            re.compile(text.pattern)
        except (re.error, TypeError, RecursionError, OverflowError) as error:
            raise Fault((*place, "regex"), f"must be a regular expression, got {text.pattern!r}: {error}") from None
    elif not isinstance(text, str) or not text:
        raise Fault(place, f"must be text that is not empty, a glob or a regex, got {text!r}")


def _check_template(place: Place, template: Any) -> None:
    if template is not None and not (isinstance(template, str) and template):
        raise Fault(place, f"must be text that is not empty, got {template!r}")


def _check_name(place: Place, name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise Fault(place, f"must have names that are text and not empty, got {name!r}")
