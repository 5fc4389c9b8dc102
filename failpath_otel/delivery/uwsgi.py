"""uWSGI: its first process imports the application and then forks its workers in C, past Python's own fork.

A thread in the first process may be waiting for the interpreter's lock at that moment. The child, which has no such thread,
gives the lock up to it and waits for ever. So no thread of ours lives there: what is recorded is left to the first worker.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final

from failpath_otel.notices import warn_once

_NEVER_COUNTED: Final = (1 << 64) - 1
"""The number of respawns, less than none, of a worker that was not forked: not yet, or it is the first process itself."""


def is_first_process() -> bool:
    """Whether this is the process that forks uWSGI's workers, before or after it did."""
    uwsgi = _module()
    if uwsgi is None or _is_child(uwsgi):
        return False
    return uwsgi.masterpid() in (0, os.getpid())  # another is a child that the application itself has forked


def awaits_workers() -> bool:
    """Whether this is the first process and its first worker is yet to come."""
    uwsgi = _module()
    return uwsgi is not None and is_first_process() and uwsgi.numproc > 0 and _respawns_of_first(uwsgi) == _NEVER_COUNTED


def knows_its_place() -> bool:
    """Whether this process has been told what it is: a worker, a mule or a spooler."""
    uwsgi = _module()
    return uwsgi is not None and _is_child(uwsgi)


def is_spooler() -> bool:
    """Whether this process is a spooler, which uWSGI kills where it ends."""
    uwsgi = _module()
    return uwsgi is not None and bool(uwsgi.i_am_the_spooler())


def is_heir() -> bool:
    """Whether this process sends what the first one left: the first worker does, in its first life."""
    uwsgi = _module()
    return uwsgi is not None and uwsgi.worker_id() == 1 and _respawns_of_first(uwsgi) in (0, _NEVER_COUNTED)


def call_in_workers(function: Callable[[], object]) -> None:
    """Has each worker, mule and spooler call ``function`` as it begins, after the hook that the application has set so far."""
    uwsgi = _module()
    if uwsgi is not None:
        _chain(uwsgi, "post_fork_hook", function)


def call_at_end(function: Callable[[], object]) -> None:
    """Has a worker whose uWSGI is told to leave out Python's exit handlers call ``function`` as it ends."""
    uwsgi = _module()
    if uwsgi is not None and "skip-atexit-teardown" in uwsgi.opt:
        _chain(uwsgi, "atexit", function)


def warn_where_threads_rest() -> None:
    """Says once that uWSGI before 2.0.27 lets no thread run between requests unless it is told to."""
    uwsgi = _module()
    if uwsgi is not None and not uwsgi.has_threads and uwsgi.loop is None:
        warn_once(
            "uwsgi-threads",
            "uWSGI runs without enable-threads: steps are sent while later requests are served, and when the worker ends. "
            "Set enable-threads = true",
        )


def _module() -> Any:
    """What uWSGI puts among the modules, before any code of the application runs."""
    module = sys.modules.get("uwsgi")
    return module if hasattr(module, "worker_id") else None


def _is_child(uwsgi: Any) -> bool:
    return bool(uwsgi.worker_id() or uwsgi.mule_id() or uwsgi.i_am_the_spooler())


def _respawns_of_first(uwsgi: Any) -> int:
    return int(uwsgi.workers()[0]["respawn_count"])


def _chain(uwsgi: Any, hook: str, function: Callable[[], object]) -> None:
    before = getattr(uwsgi, hook, None)
    if getattr(before, "calls", None) is function:
        return

    def chained() -> object:
        try:
            return None if before is None else before()
        finally:
            function()

    chained.calls = function  # type: ignore[attr-defined]
    setattr(uwsgi, hook, chained)
