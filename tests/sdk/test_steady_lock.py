"""SteadyLock: whatever comes from outside, and whenever, the lock is free again."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

import pytest

from failpath_otel.interruption import SteadyLock

T = TypeVar("T")


class Alarm(Exception):
    """What comes from outside."""


class RuntimeAlarm(RuntimeError):
    """The same, of the class by which a lock says that it is not held."""


class Interrupted:
    """A lock after whose calls an alarm comes, or those of what runs under it: CPython looks for signals after each call."""

    def __init__(self, moment: int, kind: type[Exception]) -> None:
        self.lock = SteadyLock()
        self.left = moment
        self.kind = kind
        self._real, self._is_held = self.lock._lock, self.lock.is_held  # nothing public stands between a call and what follows
        self.lock._lock = self  # type: ignore[assignment]
        self.lock.is_held = lambda: self.after(self._is_held())

    def acquire(self, *, timeout: float = -1) -> bool:
        """The lock's own, and then the alarm."""
        return self.after(self._real.acquire(timeout=timeout))

    def release(self) -> None:
        """The lock's own, and then the alarm."""
        self.after(self._real.release())

    def work(self) -> None:
        """What is done under the lock."""
        self.after(None)

    def after(self, answer: T) -> T:
        """Raises the alarm where it is time."""
        self.left -= 1
        if self.left == 0:
            handle(sys._getframe(), self.kind)
        return answer

    @property
    def is_free(self) -> bool:
        """Whether any thread can have it."""
        self.left = 0
        return is_free(self.lock)


def handle(frame: FrameType, kind: type[Exception]) -> None:
    """As a signal handler, whose frame is given the one below it."""
    raise kind


def is_free(lock: SteadyLock) -> bool:
    """Whether another thread can have it."""
    had: list[object] = []
    other = threading.Thread(target=lambda: had.append(lock.run_within(0.0, lambda: True)))
    other.start()
    other.join()
    return had == [True] and not lock.is_held()


USES: dict[str, Callable[[Interrupted], object]] = {
    "run": lambda it: it.lock.run(it.work),
    "run_within": lambda it: it.lock.run_within(10.0, it.work),
    "nested": lambda it: it.lock.run(it.lock.run, it.work),
    "nested in time": lambda it: it.lock.run(it.lock.run_within, 10.0, it.work),
}


@pytest.mark.parametrize("kind", [Alarm, RuntimeAlarm])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_an_interruption_passes_and_leaves_the_lock_free(use: Callable[[Interrupted], object], kind: type[Exception]) -> None:
    for moment in range(1, 1000):
        it = Interrupted(moment, kind)
        try:
            use(it)
        except kind:
            assert it.is_free, f"moment {moment}"
        else:
            assert it.left > 0, "the alarm was lost"
            break
    else:
        pytest.fail("there is no end")
    assert moment > 4


def test_it_gives_what_the_function_gives_and_what_it_raises() -> None:
    lock = SteadyLock()
    assert (lock.run(max, 1, 2), lock.run_within(10.0, lambda: 3)) == (2, 3)
    with pytest.raises(RuntimeError, match="of the function"):
        lock.run(fail)
    assert is_free(lock)


def fail() -> None:
    """Raises what a lock raises that is not held."""
    raise RuntimeError("of the function")


def test_no_two_threads_are_within_at_once() -> None:
    lock = SteadyLock()
    within = most = 0

    def enter() -> None:
        nonlocal within, most
        within += 1
        most = max(most, within)
        within -= 1

    def often() -> None:
        for _ in range(3000):
            lock.run(enter)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=often) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert most == 1


def test_its_holder_may_come_again_and_is_told_so() -> None:
    lock = SteadyLock()
    assert lock.run(lock.is_held)
    assert lock.run(lock.run, lock.is_held)
    assert lock.run(lock.run_within, 10.0, lambda: True) is None
    assert not lock.is_held()


def test_who_waits_for_it_in_vain_goes_without() -> None:
    lock = SteadyLock()
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait(60)

    holder = threading.Thread(target=lock.run, args=(hold,))
    holder.start()
    held.wait(60)
    try:
        assert lock.run_within(0.001, lambda: True) is None
    finally:
        go_on.set()
        holder.join()
    assert is_free(lock)
