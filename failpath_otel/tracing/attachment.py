"""One processor on each provider that comes into use."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from failpath_otel.delivery import Delivery
from failpath_otel.notices import warn_once
from failpath_otel.tracing.processor import FailpathSpanProcessor
from failpath_otel.tracing.provider import behind
from failpath_otel.tracing.sampler import RecordingSampler


class Attachment:
    """Attaches one processor to each provider that comes into use, once, until `detach`; without one it does nothing."""

    def __init__(
        self, processor: FailpathSpanProcessor | None, sampled: Callable[[Any], RecordingSampler] | None = None
    ) -> None:
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
        processor = self._processor
        if add is None or processor is None:
            return
        target = behind(provider)
        mark = (weakref.ref(target),)
        # In one step, for the first steps of several threads may meet the same provider at once.
        known = self._known.setdefault(id(target), mark)
        if known is mark or known[0]() is not target:
            self._known[id(target)] = mark
            if self._sampled is not None and hasattr(target, "sampler"):
                target.sampler = self._sampled(target.sampler)
            add(processor)

    def detach(self) -> None:
        """Leaves the providers as they were, but for what others put there since. Called in a finalizer too."""
        processor, self._processor = self._processor, None
        if processor is None or processor.has_open_steps:
            return
        processor.leave_alone()
        for (known,) in list(self._known.values()):
            provider = known()
            if provider is not None:
                _remove(processor, provider)
                sampler = getattr(provider, "sampler", None)
                if self._sampled is not None and isinstance(sampler, RecordingSampler):
                    provider.sampler = sampler.inner
        self._known.clear()


def _remove(processor: FailpathSpanProcessor, provider: Any) -> None:
    # OpenTelemetry has no way to remove one (opentelemetry-python, as of 1.45). Where it keeps them elsewhere ours stays, and
    # does nothing.
    processors = getattr(provider, "_active_span_processor", None)
    lock = getattr(processors, "_lock", None)
    if lock is None or not isinstance(getattr(processors, "_span_processors", None), tuple):
        return
    if lock.acquire(blocking=False):  # a finalizer may have interrupted the holder; then it stays as well
        try:
            processors._span_processors = tuple(each for each in processors._span_processors if each is not processor)  # type: ignore[union-attr]  # noqa: SLF001
        finally:
            lock.release()


def retire(delivery: Delivery, attachment: Attachment) -> None:
    """What becomes of a client that nobody has any more, nor a run or step of it. Called by a finalizer, anywhere.

    One that recorded nothing may be there for the spans of libraries alone, made in one line without a name: it stays.
    """
    if delivery.closed or not delivery.is_used:
        return
    warn_once("forgotten", "a FailpathClient was dropped without shutdown(): make one for the process, once, and keep it")
    attachment.detach()
    delivery.retire()
