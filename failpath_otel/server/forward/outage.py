"""What is known of the state of the server to which events go on."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from failpath_otel.errors import ExportError, RetryableError, UnauthorizedError
from failpath_otel.events.text import clip

FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 5.0
UNUSABLE_PAUSE_SECONDS: Final = 60.0
"""Before the next try where somebody has to mend something: a key, an address."""


class Outage:
    """Why and until when upstream is not called. Its owner sees to it that one thread at a time is here.

    Attributes:
        since_ns: When the first of the failures came that no success has followed (Unix epoch); ``None`` while all is well.
        until: Before this (monotonic seconds) upstream is not called.
        probed: One thread tries whether it is over; the others wait for what it finds.
        reason: The last failure, also after its end.
        reason_at_ns: When that was.
    """

    def __init__(self, clock: Callable[[], int] = time.time_ns, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.since_ns: int | None = None
        self.until = 0.0
        self.probed = False
        self.reason: str | None = None
        self.reason_at_ns: int | None = None
        self._clock = clock
        self._monotonic = monotonic
        self._failures = 0
        self._last_failure = 0.0
        self._logged: set[str] = set()

    @property
    def open(self) -> bool:
        """Whether the last call failed."""
        return self.since_ns is not None

    def left(self) -> float:
        """Seconds until upstream may be called again; 0 where it may be now."""
        return max(0.0, self.until - self._monotonic())

    def begin(self, error: ExportError, called_at: float) -> None:
        """A call that was made at ``called_at`` (monotonic seconds) failed."""
        now = self._monotonic()
        # Calls that were under way together fail together, and count as one failure.
        if called_at >= self._last_failure:
            self._failures += 1
            self._last_failure = now
        self.probed = False
        self.since_ns = self.since_ns or self._clock()
        self.reason, self.reason_at_ns = clip(str(error), 512), self._clock()
        self.until = max(self.until, now + self._pause(error))

    def end(self) -> str | None:
        """A call succeeded. What to log, where anything was logged of the outage."""
        news = None
        if self._logged and self.since_ns is not None:
            news = f"after {(self._clock() - self.since_ns) / 1e9:.0f} s"
        self.since_ns = None
        self.until = 0.0
        self.probed = False
        self._failures = 0
        self._logged.clear()
        return news

    def is_news(self, error: ExportError) -> bool:
        """True once for each kind of failure within an outage."""
        kind = type(error).__name__
        if kind in self._logged:
            return False
        self._logged.add(kind)
        return True

    def _pause(self, error: ExportError) -> float:
        if not isinstance(error, RetryableError):
            return UNUSABLE_PAUSE_SECONDS
        if error.retry_after is not None and error.retry_after >= FIRST_PAUSE_SECONDS:
            return error.retry_after
        ceiling: float = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(max(self._failures - 1, 0), 16))
        # Jitter keeps the bridges of many machines from coming back all at once.
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - no secret is drawn


def way_out(error: ExportError) -> str:
    """What to do about it; empty where it passes by itself."""
    if isinstance(error, UnauthorizedError):
        return "; set the right project key with --forward-key or FAILPATH_PROJECT_KEY"
    if not isinstance(error, RetryableError):
        return "; check --forward-to"
    return ""
