"""WakeUp: what threads of delivery sleep on, the worker and who waits for it; and what wakes them from anywhere."""

from __future__ import annotations

import contextlib
import threading

from failpath_otel.interruption import only_waits


class WakeUp:
    """One call of `give` ends the next `wait`, or the one that goes on; several before it count as one.

    ``give`` may be called anywhere, a signal handler and a finalizer included, which a Condition or an Event does not allow.
    Nor is it `queue.SimpleQueue`: before Python 3.13 its ``get(timeout=…)`` waits for ever where the time is over between its
    two looks, as it is with a timeout of microseconds, or where the thread was held up meanwhile.
    """

    def __init__(self) -> None:
        self._asleep = threading.Lock()
        self._asleep.acquire()

    @property
    def is_current(self) -> bool:
        """False once another kind of lock took the place of the one that this is made of, as gevent's does."""
        return type(self._asleep) is type(threading.Lock())

    def give(self) -> None:
        """Wakes who waits, or who is next to wait."""
        with contextlib.suppress(RuntimeError):  # given already, and not taken yet
            self._asleep.release()

    @only_waits
    def wait(self, seconds: float) -> None:
        """Waits for a ``give``, at most for this time; does not say which it was."""
        self._asleep.acquire(timeout=max(0.0, min(seconds, threading.TIMEOUT_MAX)))
