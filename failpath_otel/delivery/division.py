"""Division: which of the waiting events go out together, so that one which is never taken does not stop the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from failpath_otel import clock

FAILURES_TOGETHER: Final = 3
"""How often in a row a batch may fail before it is asked whether something in it is the reason."""
FAILURES_ALONE: Final = 4
"""How often an event has to fail alone, others being taken between each two of these times, before it is given up."""
HOPELESS_SECONDS: Final = 60.0
"""For how long refused batches are not divided, after one of which nothing was taken."""
_FIRST_PAUSE_SECONDS: Final = 0.25
_MAX_PAUSE_SECONDS: Final = 10.0
CONTROL: Final = 0
"""In place of a number: an event that was taken before, and is sent again to see whether the destination still takes events."""
_STRIDE: Final = 0.618
"""Of a batch, from one event that is tried alone to the next: neighbours are likely to have the same fate."""

_Try = Literal["batch", "canary", "part", "suspect", "control"]


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What a failure tells.

    Attributes:
        give_up: The events that are never taken.
        wait: Whether it tells of the destination, which is to be left alone for a while.
        hopeless: Whether nothing at all was taken, so that it is not these events that are the reason.
    """

    give_up: Sequence[int] = ()
    wait: bool = False
    hopeless: bool = False


@dataclass(eq=False, slots=True)
class _Part:
    numbers: list[int]
    failed: bool = False


@dataclass(slots=True)
class _Suspect:
    """An event that failed alone: how often, when it is tried again, and how much had been taken when it failed last."""

    taken: int
    failures: int
    retry_at: float


class Division:
    """Knows events by their numbers alone. One try at a time: `choose`, then what became of it.

    While all is well, what waits goes out as it is. A batch that fails a few times in a row lends one event, to be tried alone
    (the canary): only where that is taken, and so the destination is there, are the others divided. Halves are tried side by
    side, without a pause while one of them is taken now and then, until what fails stands alone. That is a suspect, passed over
    from then on; it is tried again a few times, and given up if it fails each time while others are taken in between, or one
    of them again where no others come (the control). So an outage divides nothing and costs nothing, and one bad event costs
    requests in the order of the logarithm of its batch.

    What a destination refuses for good is divided at once, and given up where it is refused alone.
    """

    def __init__(self, max_batch_size: int, clock: Callable[[], float] = clock.monotonic) -> None:
        self._max_batch_size = max_batch_size
        self._clock = clock
        self._hurried = False
        self._taken = 0
        self._hopeless_until = 0.0
        self.reset()

    def reset(self) -> None:
        """Forgets what is known of single events, all of which are gone."""
        self._try: _Try = "batch"
        self._tried: Sequence[int] = ()
        self._rest: list[int] = []
        self._head: int = 0
        self._failures = 0
        self._parts: list[_Part] = []
        self._untaken = 0
        self._most_untaken = 0
        self._suspects: dict[int, _Suspect] = {}
        self._lone_failures = 0
        self._lone_at = 0.0

    @property
    def at_rest(self) -> bool:
        """Whether what waits goes out as it is."""
        return not (self._failures or self._parts or self._suspects)

    @property
    def dividing(self) -> bool:
        """Whether parts of a batch are to be tried one after the other."""
        return bool(self._parts)

    @property
    def tries_control(self) -> bool:
        """Whether what was chosen last is the control."""
        return self._try == "control"

    @property
    def tries_again(self) -> bool:
        """Whether what was chosen last was tried before with others, or alone."""
        return self._try != "batch"

    @property
    def suspects(self) -> int:
        """How many events are passed over, for they failed alone."""
        return len(self._suspects)

    @property
    def hopeless(self) -> bool:
        """Whether refused batches are not divided now, because nothing was taken lately."""
        return self._clock() < self._hopeless_until

    def hurry(self) -> None:
        """Has each suspect tried without a wait, once. May be called from any thread."""
        self._hurried = True

    def wait(self) -> float:
        """Seconds until a suspect is to be tried again; infinite where there is none."""
        if not self._suspects:
            return math.inf
        due = min(map(self._due, self._suspects.values()))
        return 0.0 if self._hurried else max(0.0, due - self._clock())

    def choose(self, waiting: Sequence[int], *, control: bool) -> Sequence[int]:
        """What is to be tried of the oldest events, in order; nothing where all of them have to wait.

        ``control`` is whether there is an event that was taken before; it is chosen as `CONTROL`.
        """
        self._hasten()
        chosen = self._next_part(waiting) or self._suspect(waiting, in_company=True) or self._others(waiting)
        if not chosen and (chosen := self._suspect(waiting, in_company=False)) and control:
            self._try, chosen = "control", [CONTROL]
        self._tried = chosen
        return chosen

    def begin(self, numbers: Sequence[int]) -> None:
        """As `choose`, where everything goes out that waits."""
        self._try, self._tried, self._hurried = "batch", numbers, False

    def was_taken(self) -> None:
        """The destination took what was tried."""
        self._taken += 1
        self._untaken = self._lone_failures = 0
        self._hopeless_until = 0.0
        if self._try == "canary":
            self._divide(self._rest)
        elif self._try == "part":
            del self._parts[self._place()]
        elif self._try == "suspect":
            del self._suspects[self._tried[0]]
        elif self._try == "batch":
            self._failures = 0

    def failed(self) -> Conclusion:
        """What was tried could not be sent; it may be the reason itself."""
        if self._try == "part":
            return self._part_failed()
        if self._try == "suspect":
            return self._suspect_failed(self._tried[0])
        if self._try == "control":
            self._put_off()
            return Conclusion()
        if self._try == "batch" and self._tried[0] != self._head:
            self._head, self._failures = self._tried[0], 0
        self._failures += 1
        return Conclusion(wait=True)

    def refused(self) -> Conclusion:
        """The destination refuses what was tried, for what is in it."""
        if self._try == "part":
            return self._part_refused()
        if self._try == "control":
            return Conclusion()
        if len(self._tried) == 1:
            self._suspects.pop(self._tried[0], None)
            return Conclusion(self._tried)
        if self.hopeless:
            return self.give_up()
        self._divide(self._tried)
        return Conclusion()

    def give_up(self) -> Conclusion:
        """Nothing there takes events: what was tried goes, with the other parts of its batch."""
        given_up = {*self._tried, *(number for part in self._parts for number in part.numbers)}
        for number in given_up:
            self._suspects.pop(number, None)
        self._parts.clear()
        self._failures = 0
        self._hopeless_until = self._clock() + HOPELESS_SECONDS
        return Conclusion(sorted(given_up), hopeless=True)

    # What to try

    def _next_part(self, waiting: Sequence[int]) -> list[int]:
        """The first part that was not tried yet: both halves are, before one of them is divided further."""
        present = set(waiting) if self._parts else set[int]()
        while self._parts:
            place = next((place for place, part in enumerate(self._parts) if not part.failed), None)
            if place is None:
                self._parts[:1] = [_Part(half) for half in _halves(self._parts[0].numbers)]
                continue
            part = self._parts[place]
            part.numbers = [number for number in part.numbers if number in present]  # others went, when the queue was full
            if part.numbers:
                self._try = "part"
                return part.numbers
            del self._parts[place]
        return []

    def _suspect(self, waiting: Sequence[int], *, in_company: bool) -> list[int]:
        """The suspect that is to be tried now: one since whose last failure others were taken, or any."""
        if not self._suspects:
            return []
        present, now = set(waiting), self._clock()
        for number in [number for number in self._suspects if number not in present]:
            del self._suspects[number]
        for number, suspect in self._suspects.items():
            if self._due(suspect) <= now and (suspect.taken < self._taken or not in_company):
                self._try = "suspect"
                return [number]
        return []

    def _others(self, waiting: Sequence[int]) -> list[int]:
        others = [number for number in waiting if number not in self._suspects][: self._max_batch_size]
        self._try = "batch"
        if len(others) > 1 and self._failures >= FAILURES_TOGETHER and others[0] == self._head:
            self._try = "canary"
            # The newest first: it was not there when it all began.
            canary = others[-1 - int((self._failures - FAILURES_TOGETHER) * _STRIDE * len(others)) % len(others)]
            self._rest = [number for number in others if number != canary]
            return [canary]
        return others

    def _due(self, suspect: _Suspect) -> float:
        return suspect.retry_at if suspect.taken < self._taken else self._lone_at

    def _hasten(self) -> None:
        if self._hurried:
            self._hurried = False
            self._lone_at = 0.0
            for suspect in self._suspects.values():
                suspect.retry_at = 0.0

    # What became of it

    def _divide(self, numbers: Sequence[int]) -> None:
        self._parts = [_Part(half) for half in _halves(numbers)]
        self._untaken = self._failures = 0
        # A way down to a single event, both halves at each turn, and a little.
        self._most_untaken = 2 * len(numbers).bit_length() + 4

    def _place(self) -> int:
        return next(place for place, part in enumerate(self._parts) if not part.failed)

    def _part_failed(self) -> Conclusion:
        self._untaken += 1
        if self._untaken > self._most_untaken:
            # Nothing was taken for so long that it is the destination; from here on it is asked as in an outage.
            self._head = min(min(part.numbers) for part in self._parts)
            self._failures = FAILURES_TOGETHER
            self._parts.clear()
            return Conclusion(wait=True)
        part = self._parts[self._place()]
        if len(part.numbers) > 1:
            part.failed = True
        else:
            self._parts.remove(part)
            self._suspects[part.numbers[0]] = _Suspect(self._taken, 1, self._clock() + _pause(1))
        return Conclusion()

    def _part_refused(self) -> Conclusion:
        self._untaken += 1
        if self._untaken > self._most_untaken:
            return self.give_up()
        part = self._parts[self._place()]
        if len(part.numbers) > 1:
            part.failed = True
            return Conclusion()
        self._parts.remove(part)
        return Conclusion(part.numbers)

    def _suspect_failed(self, number: int) -> Conclusion:
        suspect = self._suspects.pop(number)
        if suspect.taken < self._taken:
            suspect.failures += 1
            if suspect.failures >= FAILURES_ALONE:
                return Conclusion([number])
            suspect.retry_at = self._clock() + _pause(suspect.failures)
            suspect.taken = self._taken
        else:
            self._put_off()  # nothing was taken since, so this tells nothing of the event
        self._suspects[number] = suspect  # behind the others, whose turn it is
        return Conclusion()

    def _put_off(self) -> None:
        self._lone_failures += 1
        self._lone_at = self._clock() + _pause(self._lone_failures)


def _halves(numbers: Sequence[int]) -> Iterable[list[int]]:
    middle = (len(numbers) + 1) // 2
    return [half for half in (list(numbers[:middle]), list(numbers[middle:])) if half]


def _pause(failures: int) -> float:
    return float(min(_MAX_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(failures - 1, 16)))
