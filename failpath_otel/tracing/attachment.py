"""One processor on each provider that comes into use."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from opentelemetry.sdk.trace import SpanProcessor

from failpath_otel.tracing.provider import behind


class Attachment:
    """Attaches one processor to each provider that comes into use, once."""

    def __init__(self, processor: SpanProcessor, sampled: Callable[[Any], Any] | None = None) -> None:
        """``sampled`` makes the sampler of a provider into the one that it is to have from then on."""
        self._processor = processor
        self._sampled = sampled
        # By identity, since logfire's provider cannot be hashed.
        self._known: dict[int, tuple[weakref.ref[Any]]] = {}

    def __call__(self, provider: Any) -> None:
        """Attaches to ``provider`` where it takes processors.

        By duck type: logfire's provider is no SDK provider, and ddtrace's takes no processors.
        """
        add = getattr(provider, "add_span_processor", None)
        if add is None:
            return
        target = behind(provider)
        mark = (weakref.ref(target),)
        # In one step, for the first steps of several threads may meet the same provider at once.
        known = self._known.setdefault(id(target), mark)
        if known is mark or known[0]() is not target:
            self._known[id(target)] = mark
            if self._sampled is not None and hasattr(target, "sampler"):
                target.sampler = self._sampled(target.sampler)
            add(self._processor)
