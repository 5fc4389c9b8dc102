"""RecordingSampler: spans that could be steps are seen although they are not sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from failpath_otel.events import semconv
from failpath_otel.interruption import is_interruption
from failpath_otel.notices import warn_once
from failpath_otel.rules.discovery import rules_in_use
from failpath_otel.rules.matching import CompiledRules


class RecordingSampler(Sampler):
    """Asks ``inner``; of the spans that it drops, those that could be steps are recorded, and not exported.

    A span that is dropped never reaches a span processor, so without this no rule can see it. What is exported stays what it
    was: the sampled flag is not set, and trace state is ``inner``'s. Recording costs what it costs for a sampled span.

    Before a span begins its scope is not known, and a server's span may still get its name: these are not asked.

    Args:
        inner: The sampler that decides.
        rules: As for `FailpathClient`: without them those of the environment, or of the nearest ``.failpath/spans.json``.

    Raises:
        ConfigError: Rules that were given cannot be used.
    """

    def __init__(self, inner: Sampler, rules: Any = None) -> None:
        self.inner: Final = inner
        self._rules = rules if isinstance(rules, CompiledRules) else rules_in_use(rules)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """``inner``'s result, with ``RECORD_ONLY`` in place of ``DROP`` where the span could be a step."""
        more = {} if trace_state is None else {"trace_state": trace_state}
        result: Any = self.inner.should_sample(parent_context, trace_id, name, kind, attributes, links, **more)
        if result.decision is not Decision.DROP:
            return cast("SamplingResult", result)
        try:
            if self._could_be_step(name, kind, attributes):
                # A result's attributes take the place of the span's own.
                return SamplingResult(Decision.RECORD_ONLY, {**(attributes or {}), **result.attributes}, result.trace_state)
        except Exception as error:
            if is_interruption(error):
                raise
            warn_once("sampler", "a span could not be looked at before it began", exc_info=True)
        return cast("SamplingResult", result)

    def get_description(self) -> str:
        """Its name, with ``inner``'s."""
        return f"RecordingSampler({self.inner.get_description()})"

    def _could_be_step(self, name: str, kind: SpanKind | None, attributes: Attributes) -> bool:
        given = attributes or {}
        if semconv.FLOW_SLUG in given:
            return True
        rules = self._rules
        return rules is not None and rules.may_record(name, (kind or SpanKind.INTERNAL).name.lower(), given)
