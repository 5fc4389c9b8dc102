"""Conditions, compiled: what they say of a span that has ended, and of one that has only begun.

A span that has only begun may still be given attributes, so a condition on one that is not there yet is open. That is what
keeps a start from being recorded for a step that the end would know to be another.
"""

from __future__ import annotations

import enum
import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from failpath_otel.rules.terms import Condition, Conditions, Glob, Present, Range, Regex, Text

MAX_SUBJECT_CHARS: Final = 4096
"""Of a longer value the beginning is matched, so that no value can make a pattern slow."""

_MISSING: Final = object()

TextTest = Callable[[str], bool]
Test = Callable[[Any], bool]


class Verdict(enum.Enum):
    """What is known of conditions."""

    NO = enum.auto()
    OPEN = enum.auto()
    """It depends on attributes that may still come."""
    YES = enum.auto()


class Compiled:
    """Conditions on attributes, all of which are to hold."""

    def __init__(self, conditions: Conditions) -> None:
        self._tests = tuple((name, _absence(condition), _test(condition)) for name, condition in conditions.items())
        self.names = tuple(conditions)
        """The attributes that are looked at."""

    def verdict(self, attributes: Mapping[str, Any], *, ended: bool) -> Verdict:
        """What they say of these attributes."""
        verdict = Verdict.YES
        for name, wants_absence, test in self._tests:
            value = attributes.get(name, _MISSING)
            if value is _MISSING or value is None:
                if not ended:
                    verdict = Verdict.OPEN
                elif not wants_absence:
                    return Verdict.NO
            elif not test(value):
                return Verdict.NO
        return verdict

    def hold(self, attributes: Mapping[str, Any]) -> bool:
        """Whether they hold of a span that has ended."""
        return self.verdict(attributes, ended=True) is Verdict.YES


def text_test(text: Text) -> TextTest:
    """The test of a name."""
    if isinstance(text, Glob):
        matches = re.compile(fnmatch.translate(text.pattern)).match
        return lambda subject: matches(subject[:MAX_SUBJECT_CHARS]) is not None
    if isinstance(text, Regex):
        finds = re.compile(text.pattern).search
        return lambda subject: finds(subject[:MAX_SUBJECT_CHARS]) is not None
    return lambda subject: subject == text


def as_subject(value: Any) -> str | None:
    """A primitive as the text that patterns and ids see: as JSON writes it. Other values have none."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return None


def _absence(condition: Condition) -> bool:
    return isinstance(condition, Present) and not condition.expected


def _test(condition: Condition) -> Test:
    if isinstance(condition, Present):
        expected = condition.expected
        return lambda _: expected
    if isinstance(condition, Range):
        return _range_test(condition)
    if isinstance(condition, Glob | Regex):
        matches = text_test(condition)
        return lambda value: (subject := as_subject(value)) is not None and matches(subject)
    if isinstance(condition, Sequence) and not isinstance(condition, str):
        allowed = frozenset(map(_typed, cast("Sequence[Any]", condition)))
        return lambda value: as_subject(value) is not None and _typed(value) in allowed
    wanted = _typed(condition)
    return lambda value: as_subject(value) is not None and _typed(value) == wanted


def _typed(value: Any) -> tuple[str, Any]:
    """True is not 1, and "1" is neither; 200 and 200.0 are one number."""
    if isinstance(value, bool):
        return ("flag", value)
    return ("number", value) if isinstance(value, int | float) else ("text", value)


def _range_test(bounds: Range) -> Test:
    low = float("-inf") if bounds.at_least is None else bounds.at_least
    high = float("inf") if bounds.at_most is None else bounds.at_most

    def test(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    return test
