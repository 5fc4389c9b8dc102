"""RQ: a job goes on with the run of whoever enqueued it.

RQ has no signals, so three of its methods are wrapped: where a job is made, where it is performed, and what a work horse does
from first to last.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from failpath_otel.client import FailpathClient
from failpath_otel.delivery.process import EXIT_TIMEOUT_MILLIS
from failpath_otel.integrations.jobs import HEADER, Flow, JobAttempt, JobRuns, StepKeyOf, needed
from failpath_otel.interruption import is_interruption
from failpath_otel.notices import warn_once

_rq: Final = needed("rq")
_Job: Any = needed("rq.job").Job
_Retry: Final = _rq.Retry
# Where the workers of all kinds have it from: `BaseWorker` in RQ 3, `Worker` before.
_Worker: Any = next(kind for kind in _rq.Worker.__mro__ if "perform_job" in vars(kind))


class _AskedForRetry(Exception):  # noqa: N818 - its name is shown to people
    """A job that returned `rq.Retry`: it is to run again, so this attempt did not do it."""


_AskedForRetry.__name__ = "Retry"


class RqConnection:
    """What `connect` made; `disconnect` ends it."""

    def __init__(self, runs: JobRuns[Any]) -> None:
        self._runs = runs

    def disconnect(self) -> None:
        """Ends the connection; a job that runs now still ends as it began."""
        if _Connected.now is self:
            _Connected.now = None

    def sending(self, job: Any) -> None:
        """Puts the current run into a job that was just made; internal."""
        carrier = self._runs.carrier()
        if carrier is not None and HEADER not in job.meta:
            job.meta = {**job.meta, HEADER: carrier}  # the caller's own mapping stays as it is

    def beginning(self, job: Any, *, step: bool) -> JobAttempt | None:
        """Makes the run of a job current, and begins its step where it is one; internal."""
        run = self._runs.run_of(job.meta.get(HEADER), _name_of(job), job.id)
        if run is None:
            return None
        attempt = JobAttempt(run)
        if step:
            attempt.begin_step(self._runs.step_of(run, job))
        return attempt

    def flush(self) -> None:
        """Sends what a process has that ends without exit handlers; internal."""
        try:
            self._runs.client.flush(EXIT_TIMEOUT_MILLIS)
        except Exception as error:  # raise_on_send_error is for the service's own calls
            if is_interruption(error):
                raise
            warn_once("rq-exit", "what a work horse had still to send may be lost", exc_info=True)


class _Connected:
    """The connection of this process, and whether RQ's methods are wrapped."""

    now: RqConnection | None = None
    wrapped = False


def _name_of(job: Any) -> str:
    try:
        return str(job.func_name)
    except Exception as error:  # its data cannot be read; RQ finds out by itself
        if is_interruption(error):
            raise
        return ""


def _made_with_the_run(create: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(create)
    def made(kind: type, *args: Any, **kwargs: Any) -> Any:
        job = create(kind, *args, **kwargs)
        if _Connected.now is not None:
            _Connected.now.sending(job)
        return job

    return made


def _performed_as_a_step(perform: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(perform)
    def performed(job: Any) -> Any:
        attempt = None if _Connected.now is None else _Connected.now.beginning(job, step=True)
        if attempt is None:
            return perform(job)
        carrier = job.meta.get(HEADER)
        error: BaseException | None = None
        try:
            value = perform(job)
            error = _AskedForRetry("the job asks to run again") if isinstance(value, _Retry) else None
            return value
        except BaseException as raised:  # RQ's time limit among them, which is raised by an alarm
            error = raised
            raise
        finally:
            attempt.end(error)
            meta: Any = job.meta
            if carrier is not None and isinstance(meta, dict):
                cast("dict[str, Any]", meta).setdefault(HEADER, carrier)  # the job may have put its own in place, and run again

    return performed


def _within_the_run(perform_job: Callable[..., Any]) -> Callable[..., Any]:
    """What RQ does around a job: its callbacks, which may enqueue others. After it, outside of the time limit, a horse ends."""

    @functools.wraps(perform_job)
    def within(worker: Any, job: Any, *args: Any, **kwargs: Any) -> Any:
        connection = _Connected.now
        if connection is None:
            return perform_job(worker, job, *args, **kwargs)
        attempt = connection.beginning(job, step=False)
        try:
            return perform_job(worker, job, *args, **kwargs)
        finally:
            if attempt is not None:
                attempt.end()
            if worker.is_horse:  # it ends by os._exit
                connection.flush()

    return within


def _wrap() -> None:
    if not _Connected.wrapped:
        _Connected.wrapped = True
        _Job.create = classmethod(_made_with_the_run(_Job.create.__func__))
        _Job.perform = _performed_as_a_step(_Job.perform)
        _Worker.perform_job = _within_the_run(_Worker.perform_job)


def connect(
    client: FailpathClient,
    *,
    flows: Mapping[str, Flow] | None = None,
    step_key: StepKeyOf[Any] | None = None,
) -> RqConnection:
    """Lets jobs of RQ go on with the run of whoever enqueues them. Call it in both: where jobs are enqueued and in the worker.

    A worker calls it where its settings are (``rq worker -c shop.telemetry``), before the first job: a job's own module is
    imported within the job. Called again, it takes the place of the connection before, which is warned of.

    ::

        failpath = FailpathClient()
        connect(failpath)

        with failpath.run("checkout", run_id=order.id):
            queue.enqueue(ship, order.id)  # its steps, in the worker, are steps of this run and of this trace

    Args:
        client: The client whose runs are sent along and gone on with.
        flows: Name of a job's function (``shop.jobs.nightly``) → flow, for jobs that nobody enqueues from within a run, such as
            those of RQ's cron. The run's id is the job's.
        step_key: Gives the key of the step that a job as a whole is, or ``None``; ``lambda job: job.func_name`` makes each job
            a step. Without it only what the job itself says is a step. A retry is a further attempt.

    Raises:
        ConfigError: An argument is of another kind than these.
    """
    connection = RqConnection(JobRuns(client, flows, step_key))
    if _Connected.now is not None:
        warn_once("rq-again", "connect() was called again: the last call counts")
    _Connected.now = connection
    _wrap()
    return connection
