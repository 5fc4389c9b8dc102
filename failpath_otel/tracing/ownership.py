"""Which processor takes a span, where several of this process see it."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Final

SpanKey = tuple[int, int]


class SpanOwnership:
    """The first processor that was added takes a span, for it is called first."""

    def __init__(self) -> None:
        self._holders: dict[SpanKey, object] = {}
        self._ended: deque[SpanKey] = deque()
        self._lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def claim(self, key: SpanKey, processor: object) -> bool:
        """Whether the span is this processor's."""
        with self._lock:
            return self._holders.setdefault(key, processor) is processor

    def end(self, key: SpanKey) -> None:
        """The span has ended, and nobody takes it any more."""
        # Kept for a while: the processors after this one, or this one added twice, are yet to see the same end.
        with self._lock:
            self._holders[key] = None
            self._ended.append(key)
            if len(self._ended) > 1024:
                self._holders.pop(self._ended.popleft(), None)

    def _forget(self) -> None:
        self._lock = threading.RLock()


ownership: Final = SpanOwnership()
