"""RefusedKey: from when a destination refuses the project key until it takes something again, and when to ask next."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from failpath_otel import clock

FIRST_PAUSE_SECONDS: Final = 30.0
MAX_PAUSE_SECONDS: Final = 600.0


class RefusedKey:
    """When to ask whether the key is taken by now: after 30 s, then after twice as long each time, up to 10 min.

    Attributes:
        on_trial: Whether the events themselves are sent to find out.
    """

    def __init__(self, clock: Callable[[], float] = clock.monotonic) -> None:
        self._clock = clock
        self._pause = 0.0
        self._ask_at = math.inf
        self.on_trial = False

    def wait(self) -> float:
        """Seconds until the destination is to be asked; infinite while the key is not refused, or events are on their way."""
        return max(0.0, self._ask_at - self._clock())

    def refused(self) -> float:
        """The destination refuses the key, for the first time or still; seconds until it is to be asked."""
        self._pause = min(self._pause * 2, MAX_PAUSE_SECONDS) or FIRST_PAUSE_SECONDS
        self._ask_at = self._clock() + self._pause
        self.on_trial = False
        return self._pause

    def try_events(self) -> None:
        """The next events are to tell."""
        self._ask_at = math.inf
        self.on_trial = True

    def taken(self) -> None:
        """It takes the key."""
        self._pause, self._ask_at, self.on_trial = 0.0, math.inf, False
