"""What the worker sleeps on: no wake-up is lost, and no sleep outlasts its time."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import pytest

from failpath_otel.delivery.wake_up import WakeUp


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-9, 1e-7, 1e-6])
def test_a_sleep_ends_however_short_it_is(seconds: float) -> None:
    """`queue.SimpleQueue.get` did not, once in some ten thousand, before Python 3.13."""
    wake_up = WakeUp()

    def sleep_often() -> None:
        for _ in range(20_000):
            wake_up.wait(seconds)

    sleeper = threading.Thread(target=sleep_often, daemon=True)
    sleeper.start()
    sleeper.join(60)
    assert not sleeper.is_alive()


def test_what_is_given_before_the_sleep_ends_it_once() -> None:
    wake_up = WakeUp()
    wake_up.give()
    wake_up.give()
    wake_up.wait(3600)
    woken = threading.Event()

    def sleep() -> None:
        wake_up.wait(3600)
        woken.set()

    threading.Thread(target=sleep, daemon=True).start()
    assert not woken.wait(0.05)
    wake_up.give()
    assert woken.wait(20)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX signals")
def test_a_signal_handler_may_wake_while_the_interrupted_code_does() -> None:
    wake_up = WakeUp()

    def handler(number: int, frame: FrameType | None) -> None:
        wake_up.give()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        wake_up.give()
        signal.raise_signal(signal.SIGUSR1)
        wake_up.wait(3600)
    finally:
        signal.signal(signal.SIGUSR1, before)
