"""Threads and executors: what they run sees the current run and span of whoever handed it over."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar, cast

from failpath_otel.propagation.called import is_coroutine_function

P = ParamSpec("P")
R = TypeVar("R")


def with_context(fn: Callable[P, R]) -> Callable[P, R]:
    """``fn`` as a function that runs in a copy of the context in which this is called: same current run, same parent span.

    Context variables do not follow into threads by themselves::

        threading.Thread(target=failpath_otel.with_context(ship)).start()
        loop.run_in_executor(None, failpath_otel.with_context(ship))
        background_tasks.add_task(failpath_otel.with_context(send_mail), order)  # a coroutine function too

    The function may be called many times and at once: each call has a copy of its own. A process has other memory: hand
    `Run.carrier` to it, and `FailpathClient.resume` there.
    """
    taken = contextvars.copy_context()
    if is_coroutine_function(fn):

        @functools.wraps(fn)
        async def awaited_within(*args: Any, **kwargs: Any) -> Any:
            within = taken.copy()
            return await _Within(within, within.run(cast("Callable[..., Any]", fn), *args, **kwargs))

        return cast("Callable[P, R]", awaited_within)

    @functools.wraps(fn)
    def within(*args: P.args, **kwargs: P.kwargs) -> R:
        return taken.copy().run(fn, *args, **kwargs)

    return within


class _Within:
    """Awaits a coroutine so that each of its steps runs in a context of its own, in the task of whoever awaits it."""

    def __init__(self, context: contextvars.Context, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._context = context
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        run, coroutine = self._context.run, self._coroutine
        resume: Callable[[], Any] = functools.partial(coroutine.send, None)
        while True:
            try:
                waited_for = run(resume)
            except StopIteration as stop:
                return stop.value
            try:
                resume = functools.partial(coroutine.send, (yield waited_for))
            except BaseException as error:  # a cancellation, say, which is the coroutine's to see
                resume = functools.partial(coroutine.throw, error)


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
