"""Fork and exit: children start afresh, and what is queued is sent before the interpreter goes.

The one place that holds deliveries process-wide.
"""

from __future__ import annotations

import atexit
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from failpath_otel import clock
from failpath_otel.delivery import uwsgi
from failpath_otel.delivery.patience import Patience

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
_before_the_end: list[Callable[[], object]] = []
_finalized: set[tuple[str, int]] = set()
_patience: tuple[int, Patience] | None = None

_MULTIPROCESSING: Final = ("multiprocessing", "multiprocess", "billiard")
_POOLS: Final = ("multiprocessing", "multiprocess")
"""Those of them whose daemonic children, a pool's among them, are ended by SIGTERM alone."""


def watch(delivery: Watched) -> None:
    """From now on ``delivery`` starts afresh in forked children and is shut down at exit."""
    _watched[delivery] = None


def forget(delivery: Watched) -> None:
    """Ends `watch`."""
    _watched.pop(delivery, None)


def before_the_end(tell: Callable[[], object]) -> None:
    """Has ``tell`` called at the end of this process, while what it records is still sent."""
    _before_the_end.append(tell)


def finish_in_child() -> None:
    """Shuts deliveries down at the end of a process that leaves without atexit, wherever there is a hook for that.

    A child of `multiprocessing`, and of the packages that were made of it, leaves through ``os._exit``; a worker of uWSGI may
    be told to leave exit handlers out.
    """
    uwsgi.call_at_end(shutdown_all)
    for name in _MULTIPROCESSING:
        if _process_of(name) is not None and (name, os.getpid()) not in _finalized:
            _finalized.add((name, os.getpid()))
            importlib.import_module(f"{name}.util").Finalize(None, shutdown_all, exitpriority=0)


def patience() -> Patience | None:
    """What recording has to go by where this process is ended without a word; ``None`` where its end will tell."""
    global _patience
    if not _ends_without_a_word():
        return None
    if _patience is None or _patience[0] != os.getpid():
        _patience = (os.getpid(), Patience(EXIT_TIMEOUT_MILLIS / 1000))
    return _patience[1]


def _ends_without_a_word() -> bool:
    if "RQ_JOB_ID" in os.environ and "rq.worker" in sys.modules:
        return True  # RQ's work horse, which leaves through os._exit
    if uwsgi.is_spooler():
        return True
    daemonic = any(getattr(_process_of(name), "daemon", False) for name in _POOLS)
    return daemonic and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def _process_of(name: str) -> Any:
    """What this kind of multiprocessing tells of this process, where it is one of its children."""
    module: Any = sys.modules.get(f"{name}.process")
    if module is None:
        return None
    current = module.current_process()
    if hasattr(module, "parent_process"):
        return None if module.parent_process() is None else current
    return current if getattr(current, "_parent_pid", None) is not None else None  # billiard tells nowhere else


def shutdown_all() -> None:
    """Shuts every delivery down, all within one bound."""
    for tell in _before_the_end:
        tell()
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
