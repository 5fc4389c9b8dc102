"""The clocks of this package, which tests of the service cannot hold still: what is sent is sent in real time, and says when.

`freezegun` puts its own functions into each module that holds one of `time`'s, `time-machine` changes what these do, and a test
may patch ``time.monotonic`` with what it likes. A deadline by such a clock is never over, or was over before it began.

Call them as ``clock.time_ns()``, never as a name that was imported: the first of them is replaced where `time-machine` is.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any, Final


def _of_our_own() -> Any:
    """Another instance of the module `time`, whose functions are those of C whatever was done to the one that all share."""
    spec: Any = time.__spec__
    if spec is None or spec.loader is None or sys.implementation.name != "cpython":
        return time  # where the shared one would be set up anew
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_time: Final[Any] = _of_our_own()
_system_ns: Final[Callable[[], int]] = _time.time_ns

time_ns: Callable[[], int] = _system_ns
"""Nanoseconds since the Unix epoch."""

# Not `time.monotonic`, though it is the same clock on most systems: time-machine 2.13 to 2.19 replace that in C.
monotonic: Final[Callable[[], float]] = _time.perf_counter
"""Seconds that never go back, since a moment that means nothing."""


def notice_time_machine() -> None:
    """Has `time_ns` look past `time-machine`, where that was imported since; to be called now and then."""
    global time_ns
    if time_ns is _system_ns and "time_machine" in sys.modules:
        time_ns = _beside_time_machine


def is_replaced() -> bool:
    """Whether ``time.monotonic``, by which event loops go, is one of a test's, so that no timer of a loop may ever be due."""
    return type(time.monotonic) is not type(monotonic)


def _beside_time_machine() -> int:
    hatch: Any = getattr(sys.modules.get("time_machine"), "escape_hatch", None)
    while hatch is not None:
        if hatch.is_travelling():
            try:
                now: int = hatch.time.time_ns()
            except ValueError:  # the travel has just ended
                continue
            return now
        now = _system_ns()
        if not hatch.is_travelling():  # else it may have begun between the two
            return now
    return _system_ns()


notice_time_machine()
