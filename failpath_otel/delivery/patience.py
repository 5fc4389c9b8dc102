"""Patience: how long recording may wait for delivery, in a process that may be ended at any moment without a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from failpath_otel import clock

_SHARE: Final = 0.05


class Patience:
    """Lets an outcome wait until it is sent, as long as all these waits together are short.

    Together they take what the exit would have taken, which such a process does not come to, and a twentieth of its time.

    Args:
        exit_seconds: How long an exit may take.
    """

    def __init__(self, exit_seconds: float) -> None:
        self._began = clock.monotonic()
        self._allowed = exit_seconds
        self._spent = 0.0

    def spend(self, wait: Callable[[float], object]) -> None:
        """Calls ``wait`` with its deadline, unless there is no time left for it."""
        began = clock.monotonic()
        left = self._allowed + _SHARE * (began - self._began) - self._spent
        if left <= 0:
            return
        try:
            wait(began + left)
        finally:
            self._spent += clock.monotonic() - began
