"""Durations on a logarithmic scale: percentiles within 5 % from a handful of counts, without a look at the rows."""

from __future__ import annotations

from collections.abc import Iterable
from math import log2
from typing import Final

PER_OCTAVE: Final = 8
"""Buckets for each doubling: a bucket is 9 % wide, so its middle is within 5 % of all that is in it."""


def bucket_of(duration_us: int) -> int:
    """The bucket of a duration in microseconds; 0 holds what is below one microsecond."""
    return 1 + int(PER_OCTAVE * log2(duration_us)) if duration_us >= 1 else 0


class Histogram:
    """How many durations fell into which bucket."""

    def __init__(self, counts: Iterable[tuple[int, int]]) -> None:
        """Takes pairs of bucket and count."""
        self._counts = sorted((bucket, n) for bucket, n in counts if n > 0)
        self.total = sum(n for _, n in self._counts)

    def percentile(self, share: float) -> float:
        """The duration in microseconds that ``share`` (0 to 1) of all stay below or at; 0 where there are none."""
        wanted = share * self.total
        seen = 0
        for bucket, n in self._counts:
            seen += n
            if seen >= wanted:
                return 0.0 if bucket == 0 else 2 ** ((bucket - 0.5) / PER_OCTAVE)
        return 0.0
