"""Celery: a task goes on with the run of whoever sent it, through broker, retries and chains.

By Celery's signals, as OpenTelemetry's own instrumentation does it; the two do not need each other.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from failpath_otel.client import FailpathClient
from failpath_otel.errors import ConfigError
from failpath_otel.flow_key import FlowKey
from failpath_otel.notices import warn_once
from failpath_otel.run import Run
from failpath_otel.step import Step

signals: Any = importlib.import_module("celery.signals")  # which has no types

HEADER: Final = "failpath"
"""The message header that holds `Run.carrier`."""

StepKeyOf = Callable[[Any], "str | None"]


class CeleryConnection:
    """What `connect` made; `disconnect` ends it."""

    def __init__(
        self,
        client: FailpathClient,
        flows: Mapping[str, str | FlowKey[Any]],
        step_key: StepKeyOf | None,
    ) -> None:
        self._client = client
        self._flows = flows
        self._step_key = step_key
        self._open: dict[str, _Running] = {}
        # Without weak references: the connection is to live as long as the process, whoever holds it.
        signals.before_task_publish.connect(self._publishing, weak=False)
        signals.task_prerun.connect(self._beginning, weak=False)
        signals.task_failure.connect(self._failed, weak=False)
        signals.task_retry.connect(self._retried, weak=False)
        signals.task_postrun.connect(self._ended, weak=False)

    def disconnect(self) -> None:
        """Ends the connection; tasks that run now still end as they began."""
        signals.before_task_publish.disconnect(self._publishing)
        signals.task_prerun.disconnect(self._beginning)

    # Celery logs what a receiver raises, with a traceback for each task. So these raise nothing.

    def _publishing(self, headers: Any = None, **_: object) -> None:
        try:
            run = self._client.current_run()
            if run is not None and isinstance(headers, dict) and HEADER not in headers:
                headers[HEADER] = run.carrier()
        except Exception:
            warn_once("celery-publish", "a task is sent without its run", exc_info=True)

    def _beginning(self, task_id: str = "", task: Any = None, **_: object) -> None:
        try:
            run = self._run_of(task)
            if run is None:
                return
            key = None if self._step_key is None else self._step_key(task)
            step = None if not key else run.step(key)
            running = _Running(run, step)
            running.begin()
            self._open[task_id] = running
        except Exception:
            warn_once("celery-task", "a task runs without its run", exc_info=True)

    def _failed(self, task_id: str = "", exception: Any = None, **_: object) -> None:
        running = self._open.get(task_id)
        if running is not None and isinstance(exception, BaseException):
            running.error = exception

    def _retried(self, request: Any = None, reason: Any = None, **_: object) -> None:
        running = self._open.get(getattr(request, "id", ""))
        if running is not None and isinstance(reason, BaseException):
            # Celery's Retry holds what went wrong.
            cause = getattr(reason, "exc", None)
            running.error = cause if isinstance(cause, BaseException) else reason

    def _ended(self, task_id: str = "", **_: object) -> None:
        running = self._open.pop(task_id, None)
        if running is None:
            return
        try:
            running.end()
        except Exception:
            warn_once("celery-end", "the end of a task could not be recorded", exc_info=True)

    def _run_of(self, task: Any) -> Run[Any] | None:
        request = getattr(task, "request", None)
        carrier: Any = getattr(request, HEADER, None)
        if carrier is not None:
            return self._client.resume(carrier)
        current = self._client.current_run()  # of an eager task's caller, or of the baggage that another part brought
        if current is not None:
            return current
        flow = self._flows.get(getattr(task, "name", ""))
        if flow is None:
            return None
        return self._client.run(flow, getattr(request, "root_id", None) or getattr(request, "id", None))


class _Running:
    """A task under way: its run, and its step where tasks are steps."""

    def __init__(self, run: Run[Any], step: Step | None) -> None:
        self._run = run
        self._step = step
        self.error: BaseException | None = None

    def begin(self) -> None:
        self._run.__enter__()
        if self._step is not None:
            self._step.__enter__()

    def end(self) -> None:
        error = self.error
        kind = None if error is None else type(error)
        trace = None if error is None else error.__traceback__
        if self._step is not None:
            self._step.__exit__(kind, error, trace)
        self._run.__exit__(kind, error, trace)


def connect(
    client: FailpathClient,
    *,
    flows: Mapping[str, str | FlowKey[Any]] | None = None,
    step_key: StepKeyOf | None = None,
) -> CeleryConnection:
    """Lets tasks of every Celery app in this process go on with the run of whoever sends them. Call it once, in both.

    ::

        failpath = FailpathClient()
        connect(failpath)

        with failpath.run("checkout", run_id=order.id):
            ship.delay(order.id)  # its steps, in the worker, are steps of this run and of this trace

    Args:
        client: The client whose runs are sent along and gone on with.
        flows: Task name → flow, for tasks that nobody sends from within a run, such as those of the beat. The run's id is
            the id of the first task of the chain.
        step_key: Gives the key of the step that a task as a whole is, or ``None``; ``lambda task: task.name`` makes each task
            a step. Without it only what the task itself says is a step. A retry is an attempt that failed.

    Raises:
        ConfigError: An argument is of another kind than these.
    """
    if not isinstance(client, FailpathClient):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"client must be a FailpathClient, got {client!r}")
    if step_key is not None and not callable(step_key):
        raise ConfigError(f"step_key must be a function of the task, such as lambda task: task.name, got {step_key!r}")
    return CeleryConnection(client, flows or {}, step_key)
