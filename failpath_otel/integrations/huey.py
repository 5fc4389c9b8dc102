"""Huey: a task goes on with the run of whoever enqueued it, through retries, schedule and pipelines.

A Huey task has no headers, so the run goes along among its keyword arguments, and is taken out before the function is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

from failpath_otel.client import FailpathClient
from failpath_otel.delivery.process import EXIT_TIMEOUT_MILLIS
from failpath_otel.errors import ConfigError
from failpath_otel.integrations.jobs import HEADER, Flow, JobAttempt, JobRuns, StepKeyOf, needed
from failpath_otel.interruption import is_interruption
from failpath_otel.notices import warn_once

_signals: Any = needed("huey.signals")
_NAME: Final = "failpath"
"""Of our hooks: Huey keeps one of each name."""


class _Hooks:
    """What a Huey calls. Nothing here raises: Huey logs it, with a traceback for each task."""

    def __init__(self, runs: JobRuns[Any]) -> None:
        self._runs = runs
        self._open: dict[int, JobAttempt] = {}
        self._carriers: dict[int, Any] = {}

    def enqueued(self, signal: str, task: Any, *_: object) -> None:
        """Puts the current run into a task and into what follows it; a task that is enqueued again keeps its own."""
        carrier = self._runs.carrier()
        if carrier is None:
            return
        for one in _with_followers(task):
            one.kwargs = {**one.kwargs, HEADER: carrier}

    def before(self, task: Any) -> None:
        """Takes the run out of the task, makes it current, and begins the step that the task is."""
        carrier = None
        if HEADER in task.kwargs:
            task.kwargs = dict(task.kwargs)
            carrier = self._carriers[id(task)] = task.kwargs.pop(HEADER)
        run = self._runs.run_of(carrier, task.name, task.id)
        if run is not None:
            attempt = self._open[id(task)] = JobAttempt(run)
            attempt.begin_step(self._runs.step_of(run, task))

    def after(self, task: Any, value: object, error: BaseException | None) -> None:
        """Ends what is open of it: a retry is the same task, enqueued again after this."""
        self._end(task, error)

    def interrupted(self, signal: str, task: Any, *_: object) -> None:
        """Ends what is open of a task that is cancelled or interrupted. Not all of these come to `after`.

        Of what still runs in a thread when the consumer ends, the consumer's own thread tells, without an exception.
        """
        self._end(task, sys.exc_info()[1] or KeyboardInterrupt("the consumer ended before the task did"))

    def exiting(self) -> None:
        """Sends what a worker has: Huey restarts by ``exec``, without exit handlers."""
        try:
            self._runs.client.flush(EXIT_TIMEOUT_MILLIS)
        except Exception as error:  # raise_on_send_error is for the service's own calls
            if is_interruption(error):
                raise
            warn_once("huey-exit", "what a worker had still to send may be lost", exc_info=True)

    def _end(self, task: Any, error: BaseException | None) -> None:
        # Puts the run back; kept here, it would be taken for that of a later task in the same place of memory.
        carrier = self._carriers.pop(id(task), None)
        if carrier is not None:
            task.kwargs = {**task.kwargs, HEADER: carrier}
        attempt = self._open.pop(id(task), None)
        if attempt is not None:
            attempt.end(error)


def _with_followers(task: Any) -> Iterator[Any]:
    """A task, and those that Huey enqueues after it: of a pipeline, of an error, of a chord."""
    waiting, seen = [task], set[int]()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.on_complete, one.on_error, getattr(getattr(one, "chord_config", None), "callback", None)]


_connected: Final[WeakKeyDictionary[Any, Callable[[], None]]] = WeakKeyDictionary()


def connect(
    client: FailpathClient,
    huey: Any,
    *,
    flows: Mapping[str, Flow] | None = None,
    step_key: StepKeyOf[Any] | None = None,
) -> None:
    """Lets tasks of a Huey go on with the run of whoever enqueues them. Call it where the Huey is made, for both sides have it.

    The run is in the task's keyword argument ``failpath``. A consumer takes it out before the function is called; one that was
    started before there was `connect` does not, and would hand it on to the function: restart consumers first.
    Called again for the same Huey, it takes the place of the call before, which is warned of.

    ::

        huey = RedisHuey("shop")
        failpath = FailpathClient()
        connect(failpath, huey)

        with failpath.run("checkout", run_id=order.id):
            ship(order.id)  # its steps, in the consumer, are steps of this run and of this trace

    Args:
        client: The client whose runs are sent along and gone on with.
        huey: The Huey.
        flows: Name of a task → flow, for tasks that nobody enqueues from within a run, such as periodic ones. The run's id is
            the task's.
        step_key: Gives the key of the step that a task as a whole is, or ``None``; ``lambda task: task.name`` makes each task
            a step. Without it only what the task itself says is a step. A retry is a further attempt.

    Raises:
        ConfigError: An argument is of another kind than these, or Huey is older than 2.5.3.
    """
    hooks = _Hooks(JobRuns(client, flows, step_key))
    if not hasattr(_signals, "SIGNAL_ENQUEUED"):
        raise ConfigError("huey must be of version 2.5.3 or later, which tells of a task that is enqueued")
    before = _connected.pop(huey, None)
    if before is not None:
        warn_once("huey-again", "connect() was called again for the same Huey: the last call counts")
        before()
    huey.signal(_signals.SIGNAL_ENQUEUED)(hooks.enqueued)
    huey.signal(_signals.SIGNAL_CANCELED, _signals.SIGNAL_INTERRUPTED)(hooks.interrupted)
    huey.pre_execute(_NAME)(hooks.before)
    huey.post_execute(_NAME)(hooks.after)
    huey.on_shutdown(_NAME)(hooks.exiting)

    def disconnect() -> None:
        huey.disconnect_signal(hooks.enqueued)
        huey.disconnect_signal(hooks.interrupted)

    _connected[huey] = disconnect
