"""Which processor takes a span, where several of this process see it."""

from __future__ import annotations

from collections import deque
from typing import Final

SpanKey = tuple[int, int, int]
"""Trace id, span id and start: ids come again where an application seeds the generator that they are drawn from."""


class SpanOwnership:
    """The first processor that was added takes a span, for it is called first.

    It has no lock, which a fork or an interruption could leave held: each step is one call of C, and they may mix.
    """

    def __init__(self) -> None:
        self._holders: dict[SpanKey, object] = {}
        self._ended: deque[SpanKey] = deque()

    def claim(self, key: SpanKey, processor: object) -> bool:
        """Whether the span is this processor's."""
        return self._holders.setdefault(key, processor) is processor

    def end(self, key: SpanKey) -> None:
        """The span has ended, and nobody takes it any more."""
        # Kept for a while: the processors after this one, or this one added twice, are yet to see the same end.
        self._holders[key] = None
        self._ended.append(key)
        if len(self._ended) > 1024:
            self._holders.pop(self._ended.popleft(), None)


ownership: Final = SpanOwnership()
