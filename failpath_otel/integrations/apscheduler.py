"""APScheduler: each execution of a job is a run of its own, or goes on with the run of whoever added the job.

By a decorator, since APScheduler tells of a job only when it is over. Versions 3 and 4 are alike to it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import Token
from typing import Any, Final, ParamSpec, TypeVar, cast

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from failpath_otel.client import FailpathClient
from failpath_otel.integrations.jobs import HEADER, Flow, JobAttempt, JobRuns
from failpath_otel.propagation.current import detach

P = ParamSpec("P")
R = TypeVar("R")

_NAME: Final = "the job"


def kwargs_with_run(client: FailpathClient, **kwargs: Any) -> dict[str, Any]:
    """Keyword arguments for a job that goes on with the current run: those given, and the run as ``failpath``. Never raises.

    ::

        with failpath.run("checkout", run_id=order.id):
            scheduler.add_job(remind, "date", run_date=tomorrow, kwargs=kwargs_with_run(failpath, order_id=order.id))

    Only a function that `scheduled` decorates takes it. Outside of a run the arguments stay as they are.
    """
    carrier = JobRuns[Any](client, None, None).carrier()
    return kwargs if carrier is None else {**kwargs, HEADER: carrier}


def scheduled(
    client: FailpathClient, *, flow: Flow | None = None, step_key: str | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function that APScheduler calls, sync or async: each execution has the run that is its own.

    ::

        @scheduled(failpath, flow="nightly-report", step_key="collect")
        def nightly():
            ...

        scheduler.add_job(nightly, "cron", hour=2)

    The run is the one of `kwargs_with_run`, else a new one of ``flow``, else none: it is never the current one. The jobs of an
    ``AsyncIOScheduler`` run in the context of whoever called ``add_job`` last, which may be a request that is long over.

    Args:
        client: The client whose runs these are.
        flow: The flow of each execution that no run came with; its run id is generated.
        step_key: The step that the execution as a whole is. Without it only what the function itself says is a step.

    Raises:
        ConfigError: ``client`` is no `FailpathClient`.
    """
    runs: JobRuns[None] = JobRuns(client, None if flow is None else {_NAME: flow}, (lambda _: step_key) if step_key else None)

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        called: Callable[..., Any] = fn

        @functools.wraps(fn)
        def performed(*args: Any, **kwargs: Any) -> Any:
            execution = _Execution(runs, kwargs.pop(HEADER, None))
            error: BaseException | None = None
            try:
                execution.begin()
                return called(*args, **kwargs)
            except BaseException as raised:
                error = raised
                raise
            finally:
                execution.end(error)

        @functools.wraps(fn)
        async def performed_async(*args: Any, **kwargs: Any) -> Any:
            execution = _Execution(runs, kwargs.pop(HEADER, None))
            error: BaseException | None = None
            try:
                await execution.begin_async()
                return await called(*args, **kwargs)
            except BaseException as raised:  # the end of a scheduler among them, which cancels
                error = raised
                raise
            finally:
                await execution.end_async(error)

        return cast("Callable[P, R]", performed_async if inspect.iscoroutinefunction(fn) else performed)

    return decorate


class _Execution:
    """One execution of a job, in a context that holds nothing but its run."""

    def __init__(self, runs: JobRuns[None], carrier: Any) -> None:
        self._runs = runs
        self._token: Token[Context] = otel_context.attach(Context())
        run = runs.run_of(carrier, _NAME, None)
        self._attempt = None if run is None else JobAttempt(run)

    def begin(self) -> None:
        if self._attempt is not None:
            self._attempt.begin_step(self._runs.step_of(self._attempt.run, None))

    async def begin_async(self) -> None:
        if self._attempt is not None:
            await self._attempt.begin_step_async(self._runs.step_of(self._attempt.run, None))

    def end(self, error: BaseException | None) -> None:
        if self._attempt is not None:
            self._attempt.end(error)
        detach(self._token)

    async def end_async(self, error: BaseException | None) -> None:
        if self._attempt is not None:
            await self._attempt.end_async(error)
        detach(self._token)
