"""Fork and exit: children start afresh, and what is queued is sent before the interpreter goes.

The one place that holds deliveries process-wide.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator
from typing import Any, Final, Protocol

from failpath_otel import clock
from failpath_otel.delivery import uwsgi

EXIT_TIMEOUT_MILLIS: Final = 3000


class Watched(Protocol):
    """What this module needs of a delivery."""

    def after_fork(self) -> None:
        """Forgets the parent's state."""

    def begin_in_child(self) -> None:
        """Sends what the parent left to this child."""

    def flush(self, timeout_millis: int) -> object:
        """Sends what was recorded, within the time."""

    def shutdown(self, timeout_millis: int) -> None:
        """Sends what is left, within the time."""


pid = os.getpid()
"""This process, as far as Python's own fork tells: to look here costs less than to ask the system."""

_watched: dict[Watched, None] = {}
_finalized: set[int] = set()


def watch(delivery: Watched) -> None:
    """From now on ``delivery`` starts afresh in forked children and is shut down at exit."""
    _watched[delivery] = None


def forget(delivery: Watched) -> None:
    """Ends `watch`."""
    _watched.pop(delivery, None)


def finish_in_child() -> None:
    """Shuts deliveries down at the end of a process that leaves without atexit, wherever there is a hook for that.

    A `multiprocessing` child leaves through ``os._exit``; a worker of uWSGI may be told to leave exit handlers out.
    """
    uwsgi.call_at_end(shutdown_all)
    multiprocessing: Any = sys.modules.get("multiprocessing.process")
    if multiprocessing is None or multiprocessing.parent_process() is None or os.getpid() in _finalized:
        return
    from multiprocessing import util

    _finalized.add(os.getpid())
    util.Finalize(None, shutdown_all, exitpriority=0)


def shutdown_all() -> None:
    """Shuts every delivery down, all within one bound."""
    for delivery, timeout_millis in _within_one_bound():
        delivery.shutdown(timeout_millis)


def flush_all() -> None:
    """Has every delivery send what was recorded, all within one bound; for an end that does not come to the exit handlers."""
    for delivery, timeout_millis in _within_one_bound():
        delivery.flush(timeout_millis)


def begin_in_child() -> None:
    """Has every delivery send what uWSGI's first process left to this one; for where a worker begins."""
    for delivery in list(_watched):
        delivery.begin_in_child()


def _within_one_bound() -> Iterator[tuple[Watched, int]]:
    deadline = clock.monotonic() + EXIT_TIMEOUT_MILLIS / 1000
    for delivery in list(_watched):
        yield delivery, max(1, int((deadline - clock.monotonic()) * 1000))


def _after_fork() -> None:
    global pid
    pid = os.getpid()
    for delivery in list(_watched):
        delivery.after_fork()


atexit.register(shutdown_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
