"""What a rule says of a span that is a step by it: metadata, status, error and the reason of a skip. Pure.

It rewrites the facts of the span, of which `events.translate` makes the event, so that there is one translation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from failpath_otel.events import semconv
from failpath_otel.events.step import STATUSES, StepError
from failpath_otel.events.text import MAX_ID_CHARS, clip
from failpath_otel.events.translate import SpanFacts, last_part
from failpath_otel.rules.conditions import Compiled, as_subject
from failpath_otel.rules.rule import SpanRule

_FIELD: Final = re.compile(r"\{([^{}]+)\}")
_OURS: Final = "failpath."


class OutcomeRule:
    """What one rule says beside which step a span is."""

    def __init__(self, rule: SpanRule) -> None:
        listed = rule.metadata
        self._metadata = tuple(listed.items() if isinstance(listed, Mapping) else ((name, name) for name in listed))
        self._error = rule.error
        self._error_when = Compiled(rule.error.when if rule.error is not None else {})
        self._success = None if rule.success is None else Compiled(rule.success)
        self._skipped = rule.skipped
        self._skipped_when = Compiled(rule.skipped.when if rule.skipped is not None else {})
        templates = [rule.error.name, rule.error.message] if rule.error is not None else []
        if rule.skipped is not None:
            templates.append(rule.skipped.reason)
        conditions = [self._error_when, self._skipped_when, *([self._success] if self._success is not None else [])]
        self.names = frozenset(
            {name for _, name in self._metadata}
            | {name for compiled in conditions for name in compiled.names}
            | {name for template in templates if template for name in _FIELD.findall(template)}
        )
        """Every attribute that is looked at."""

    def begun(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes of a span that begins, as the translation reads them. One that is certain to be skipped says so."""
        rewritten = self._attributes(attributes)
        if semconv.STEP_STATUS not in rewritten and self._is_skipped(attributes):
            rewritten[semconv.STEP_STATUS] = "skipped"
        return rewritten

    def ended(self, facts: SpanFacts) -> SpanFacts:
        """The facts of a span that has ended, as the translation reads them."""
        attributes = facts.attributes
        rewritten = self._attributes(attributes)
        status = rewritten.get(semconv.STEP_STATUS) or self._status(attributes)
        if status is not None:
            rewritten[semconv.STEP_STATUS] = status
        if status == "skipped" and self._skipped is not None and semconv.SKIP_REASON not in rewritten:
            reason = _filled(self._skipped.reason, attributes)
            if reason is not None:
                rewritten[semconv.SKIP_REASON] = reason
        exception = facts.exception
        if exception is None and (status == "error" or (status is None and facts.failed)):
            exception = self._step_error(facts)
        return msgspec.structs.replace(facts, attributes=rewritten, exception=exception)

    def _attributes(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """What the service wrote itself counts more than what the rule makes of other attributes."""
        rewritten: dict[str, Any] = {
            semconv.METADATA_PREFIX + key: attributes[name] for key, name in self._metadata if attributes.get(name) is not None
        }
        rewritten.update((name, value) for name, value in attributes.items() if name.startswith(_OURS))
        if attributes.get(semconv.ERROR_TYPE) is not None:
            rewritten[semconv.ERROR_TYPE] = attributes[semconv.ERROR_TYPE]
        status = rewritten.get(semconv.STEP_STATUS)
        if not (isinstance(status, str) and status in STATUSES):
            rewritten.pop(semconv.STEP_STATUS, None)
        return rewritten

    def _status(self, attributes: Mapping[str, Any]) -> str | None:
        if self._is_skipped(attributes):
            return "skipped"
        if self._success is not None and self._success.hold(attributes):
            return "success"
        if self._error_when.names and self._error_when.hold(attributes):
            return "error"
        return None

    def _is_skipped(self, attributes: Mapping[str, Any]) -> bool:
        return self._skipped is not None and self._skipped_when.hold(attributes)

    def _step_error(self, facts: SpanFacts) -> StepError | None:
        if self._error is None:
            return None
        attributes = facts.attributes
        kind = as_subject(attributes.get(semconv.ERROR_TYPE))
        name = _filled(self._error.name, attributes) or (last_part(kind) if kind else "Error")
        message = _filled(self._error.message, attributes) or (facts.status_message if facts.failed else "")
        return StepError(clip(name, MAX_ID_CHARS), clip(message or self._cause(attributes)))

    def _cause(self, attributes: Mapping[str, Any]) -> str:
        """In place of a message: what made it an error."""
        values = ((name, as_subject(attributes.get(name))) for name in self._error_when.names)
        return ", ".join(f"{name} is {value}" for name, value in values if value is not None)


def _filled(template: str | None, attributes: Mapping[str, Any]) -> str | None:
    """The template with the attributes' values; ``None`` where one of them is not there."""
    if template is None:
        return None
    values = {name: as_subject(attributes.get(name)) for name in _FIELD.findall(template)}
    if None in values.values():
        return None
    return _FIELD.sub(lambda found: values[found[1]] or "", template)
