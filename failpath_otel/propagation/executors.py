"""Threads and executors: what they run sees the current run and span of whoever handed it over."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def with_context(fn: Callable[P, R]) -> Callable[P, R]:
    """``fn`` as a function that runs in a copy of the context in which this is called: same current run, same parent span.

    Context variables do not follow into threads by themselves::

        threading.Thread(target=failpath_otel.with_context(ship)).start()
        loop.run_in_executor(None, failpath_otel.with_context(ship))

    The function may be called many times and at once: each call has a copy of its own. A process has other memory: hand
    `Run.carrier` to it, and `FailpathClient.resume` there.
    """
    taken = contextvars.copy_context()

    @functools.wraps(fn)
    def within(*args: P.args, **kwargs: P.kwargs) -> R:
        return taken.copy().run(fn, *args, **kwargs)

    return within


class ContextExecutor(Executor):
    """An executor of threads whose calls see the current run and span of the one who submits them.

    ::

        with ContextExecutor(ThreadPoolExecutor()) as pool:
            pool.map(ship, orders)

    Args:
        executor: Does the work; it is shut down with this one.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """As ``Executor.submit``, in a copy of the context of this moment."""
        return self._executor.submit(with_context(fn), *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As ``Executor.shutdown``."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)
