"""Celery: a task goes on with the run of whoever sent it, through broker, retries and chains.

By Celery's signals, as OpenTelemetry's own instrumentation does it; the two do not need each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

from opentelemetry import context as otel_context

from failpath_otel.client import FailpathClient
from failpath_otel.errors import ConfigError
from failpath_otel.flow_key import FlowKey
from failpath_otel.integrations.jobs import checked_flows, needed
from failpath_otel.interruption import is_interruption
from failpath_otel.notices import warn_once
from failpath_otel.propagation.current import detach
from failpath_otel.steps.run import Run
from failpath_otel.steps.step import Step

signals: Any = needed("celery.signals")

HEADER: Final = "failpath"
"""The message header that holds `Run.carrier`."""

_TASK: Final = otel_context.create_key("failpath-celery-task")

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
        # By the request of each execution, not by the task's id: an eager retry runs within the attempt before it, and a
        # broker may deliver a task again while it still runs.
        self._open: WeakKeyDictionary[Any, _Running] = WeakKeyDictionary()
        for signal, receiver in (
            (signals.before_task_publish, self._publishing),
            (signals.task_prerun, self._beginning),
            (signals.task_success, self._succeeded),
            (signals.task_failure, self._failed),
            (signals.task_retry, self._retried),
            (signals.task_postrun, self._ended),
            (signals.celeryd_after_setup, self._come_last),
            (signals.worker_before_create_process, self._come_last_in_the_process),
            (signals.worker_process_init, self._come_last),
            (signals.worker_process_shutdown, self._process_ends),
        ):
            # Without weak references: the connection is to live as long as the process, whoever holds it.
            signal.connect(receiver, weak=False)

    def disconnect(self) -> None:
        """Ends the connection; tasks that run now still end as they began."""
        signals.before_task_publish.disconnect(self._publishing)
        signals.task_prerun.disconnect(self._beginning)
        if _connections.get(self._client) is self:
            del _connections[self._client]

    # Celery logs what a receiver raises, with a traceback for each task. So these raise nothing.

    def _publishing(self, headers: Any = None, **_: object) -> None:
        try:
            run = self._client.current_run()
            if run is not None and isinstance(headers, dict) and HEADER not in headers:
                headers[HEADER] = run.carrier()
        except Exception as raised:
            if is_interruption(raised):
                raise
            warn_once("celery-publish", "a task is sent without its run", exc_info=True)

    def _beginning(self, task: Any = None, **_: object) -> None:
        try:
            _take_off_what_is_left()
            run = self._run_of(task)
            if run is None:
                return
            key = None if self._step_key is None else self._step_key(task)
            running = _Running(run, run.step(key) if key else None)
            running.begin()
            self._open[task.request] = running
        except Exception as raised:
            if is_interruption(raised):
                raise
            warn_once("celery-task", "a task runs without its run", exc_info=True)

    # Success, failure and retry come before `task_postrun`, in which OpenTelemetry's instrumentation takes its context off:
    # what was put on last has to go first.

    def _succeeded(self, sender: Any = None, **_: object) -> None:
        self._end(getattr(sender, "request", None), None)

    def _failed(self, sender: Any = None, exception: Any = None, **_: object) -> None:
        self._end(getattr(sender, "request", None), exception)

    def _retried(self, request: Any = None, reason: Any = None, **_: object) -> None:
        cause = getattr(reason, "exc", None)  # Celery's Retry holds what went wrong
        self._end(request, cause if isinstance(cause, BaseException) else reason)

    def _ended(self, task: Any = None, **_: object) -> None:
        self._end(getattr(task, "request", None), None)  # of a task that was ignored or rejected

    def _end(self, request: Any, error: object) -> None:
        try:
            running = self._open.pop(request, None)
            if running is not None:
                running.end(error if isinstance(error, BaseException) else None)
        except Exception as raised:
            if is_interruption(raised):
                raise
            warn_once("celery-end", "the end of a task could not be recorded", exc_info=True)

    # Other receivers put their context on before ours, also those that were connected after us: OpenTelemetry's
    # documentation has its instrumentation of Celery begin in `worker_process_init`.

    def _come_last_in_the_process(self, **_: object) -> None:
        _connect_last(signals.worker_process_init, self._come_last)

    def _come_last(self, **_: object) -> None:
        _connect_last(signals.task_prerun, self._beginning)

    def _process_ends(self, **_: object) -> None:
        # A process of the pool ends by os._exit, which runs no exit handlers.
        try:
            self._client.shutdown()
        except Exception as raised:
            if is_interruption(raised):
                raise
            warn_once("celery-exit", "what a worker process had still to send may be lost", exc_info=True)

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
        self.before = otel_context.get_current()
        self.over = False

    def begin(self) -> None:
        self._token = otel_context.attach(otel_context.set_value(_TASK, self))
        self._run.__enter__()
        if self._step is not None:
            self._step.__enter__()

    def end(self, error: BaseException | None) -> None:
        self.over = True
        current = otel_context.get_current()
        kind = None if error is None else type(error)
        trace = None if error is None else error.__traceback__
        if self._step is not None:
            self._step.__exit__(kind, error, trace)
        self._run.__exit__(kind, error, trace)
        detach(self._token)
        if otel_context.get_value(_TASK, current) is not self:
            # Another part has put its own context on above ours, or has taken it off already: it is not ours to change.
            otel_context.attach(current)


_connections: Final[WeakKeyDictionary[FailpathClient, CeleryConnection]] = WeakKeyDictionary()


def _connect_last(signal: Any, receiver: Callable[..., None]) -> None:
    if signal.disconnect(receiver):
        signal.connect(receiver, weak=False)


def _take_off_what_is_left() -> None:
    """A part that came after us and left after us puts our context back; no other task may go on with it."""
    left = otel_context.get_value(_TASK)
    if isinstance(left, _Running) and left.over:
        otel_context.attach(left.before)


def connect(
    client: FailpathClient,
    *,
    flows: Mapping[str, str | FlowKey[Any]] | None = None,
    step_key: StepKeyOf | None = None,
) -> CeleryConnection:
    """Lets tasks of every Celery app in this process go on with the run of whoever sends them. Call it in both.

    Called again with the same client, as where a module is imported twice, it takes the place of the connection before, which
    is warned of: no step is recorded twice.

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
    checked = checked_flows(flows)
    before = _connections.pop(client, None)
    if before is not None:
        before.disconnect()
        warn_once("celery-again", "connect() was called again for the same client: the last call counts")
    connection = _connections[client] = CeleryConnection(client, checked, step_key)
    return connection
