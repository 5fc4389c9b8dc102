"""arq: a job goes on with the run of whoever enqueued it.

An arq job has no headers and its hooks do not learn how it ended. So the run goes along in the serialized job, beside what arq
puts there, and each function of a worker is wrapped.
"""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import pickle
from collections.abc import Callable, Mapping
from typing import Any, Final, cast
from weakref import WeakSet

from failpath_otel.client import FailpathClient
from failpath_otel.errors import ConfigError
from failpath_otel.integrations.jobs import HEADER, Flow, JobAttempt, JobRuns, StepKeyOf, needed

_ArqRedis: Any = needed("arq").ArqRedis
_worker: Any = needed("arq.worker")

# A worker reads a job in the task of asyncio in which it then runs it.
_carrier: contextvars.ContextVar[Any] = contextvars.ContextVar("failpath-arq-carrier", default=None)


@dataclasses.dataclass(frozen=True)
class ArqJob:
    """What `connect` gives ``step_key``.

    Attributes:
        name: The name of the job's function, as it is enqueued.
        job_id: The job's id.
        job_try: Which attempt this is, from 1.
        args: The arguments, without arq's context.
        kwargs: The arguments by name.
    """

    name: str
    job_id: str
    job_try: int
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class _Serializing:
    """A serializer that puts the current run into each job."""

    def __init__(self, runs: JobRuns[ArqJob], inner: Callable[[Any], bytes] | None) -> None:
        self._runs = runs
        self.inner: Callable[[Any], bytes] = inner.inner if isinstance(inner, _Serializing) else inner or pickle.dumps

    def __call__(self, data: Any) -> bytes:
        carrier = self._runs.carrier() if _is_job(data) else None
        return self.inner(data if carrier is None else {**data, HEADER: carrier})


class _Deserializing:
    """A deserializer that remembers the run of the job that it reads."""

    def __init__(self, inner: Callable[[bytes], Any] | None) -> None:
        self.inner: Callable[[bytes], Any] = inner.inner if isinstance(inner, _Deserializing) else inner or pickle.loads

    def __call__(self, raw: bytes) -> Any:
        data = self.inner(raw)
        if _is_job(data):
            _carrier.set(data.get(HEADER))
        return data


def _is_job(data: Any) -> bool:
    """Whether this is a job as arq serializes it; a result says in addition how it went."""
    return isinstance(data, dict) and "f" in data and "s" not in data


_wrapped: Final[WeakSet[Any]] = WeakSet()


def _within_runs(runs: JobRuns[ArqJob], function: Any) -> Any:
    """A function of a worker, or a job of its cron, as it is but for what it calls."""
    made: Any = function if isinstance(function, _worker.CronJob) else _worker.func(function)
    inner: Any = made.coroutine.__wrapped__ if made.coroutine in _wrapped else made.coroutine

    @functools.wraps(inner)
    async def performed(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        job = ArqJob(made.name, str(ctx.get("job_id", "")), int(ctx.get("job_try", 1)), args, kwargs)
        run = runs.run_of(_carrier.get(), job.name, job.job_id)
        if run is None:
            return await inner(ctx, *args, **kwargs)
        attempt = JobAttempt(run)
        error: BaseException | None = None
        try:
            await attempt.begin_step_async(runs.step_of(run, job))
            return await inner(ctx, *args, **kwargs)
        except BaseException as raised:  # that of arq's time limit and of its end among them, which cancel
            error = raised
            raise
        finally:
            await attempt.end_async(error)

    _wrapped.add(performed)
    return dataclasses.replace(made, coroutine=performed)


def connect(
    client: FailpathClient,
    target: Any,
    *,
    flows: Mapping[str, Flow] | None = None,
    step_key: StepKeyOf[ArqJob] | None = None,
) -> None:
    """Lets jobs of arq go on with the run of whoever enqueues them. Call it for each pool that enqueues and for each worker.

    A worker without it runs the same jobs, without their runs. Called again for the same, the last call counts.

    ::

        pool = await create_pool(settings)
        connect(failpath, pool)
        with failpath.run("checkout", run_id=order.id):
            await pool.enqueue_job("ship", order.id)  # its steps, in the worker, are steps of this run and of this trace

        class WorkerSettings:
            functions = [ship]

        connect(failpath, WorkerSettings)

    Args:
        client: The client whose runs are sent along and gone on with.
        target: A pool (``ArqRedis``), a worker's settings (a class or a dict), or a ``Worker`` that does not run yet. What jobs
            of a worker enqueue by ``ctx["redis"]`` goes along too, unless the worker was given a pool of its own.
        flows: Name of a function → flow, for jobs that nobody enqueues from within a run, such as those of the cron
            (``cron:nightly``). The run's id is the job's.
        step_key: Gives the key of the step that a job as a whole is, or ``None``; ``lambda job: job.name`` makes each job a
            step. Without it only what the job itself says is a step. A retry is a further attempt.

    Raises:
        ConfigError: An argument is of another kind than these.
    """
    runs: JobRuns[ArqJob] = JobRuns(client, flows, step_key)
    if isinstance(target, _ArqRedis):
        target.job_serializer = _Serializing(runs, target.job_serializer)
    elif isinstance(target, _worker.Worker):
        worker: Any = target
        worker.cron_jobs = [_within_runs(runs, job) for job in worker.cron_jobs]
        others = [_within_runs(runs, one) for one in worker.functions.values() if not isinstance(one, _worker.CronJob)]
        worker.functions = {one.name: one for one in [*others, *worker.cron_jobs]}
        worker.job_serializer = _Serializing(runs, worker.job_serializer)
        worker.job_deserializer = _Deserializing(worker.job_deserializer)
    elif isinstance(target, dict):
        settings = cast("dict[str, Any]", target)
        settings.update(_changed(runs, settings))
    elif isinstance(target, type):
        # arq reads what stands in the class itself, and nothing of its bases.
        for name, value in _changed(runs, vars(target)).items():
            setattr(target, name, value)
    else:
        raise ConfigError(f"target must be a pool of arq, a Worker or its settings, got {target!r}")


def _changed(runs: JobRuns[ArqJob], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What of a worker's settings is another with the runs."""
    changed: dict[str, Any] = {
        "job_serializer": _Serializing(runs, settings.get("job_serializer")),
        "job_deserializer": _Deserializing(settings.get("job_deserializer")),
    }
    for name in ("functions", "cron_jobs"):
        given: list[Any] = [*(settings.get(name) or ())]
        if given:
            changed[name] = [_within_runs(runs, one) for one in given]
    return changed
