"""Dramatiq: a message goes on with the run of whoever sent it, through broker, retries, pipelines and callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

from failpath_otel.client import FailpathClient
from failpath_otel.integrations.jobs import HEADER, Flow, JobAttempt, JobRuns, StepKeyOf, needed
from failpath_otel.notices import warn_once

_Middleware: Any = needed("dramatiq").Middleware


class _OutermostMiddleware(_Middleware):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]
    """The run, around all that other middleware does: pipelines, callbacks and retries are sent within it."""

    def __init__(self, runs: JobRuns[Any], open_attempts: dict[int, JobAttempt]) -> None:
        self._runs = runs
        self._open = open_attempts

    def before_enqueue(self, broker: Any, message: Any, delay: Any) -> None:
        """Puts the current run into a message; where there is none, one that is sent again is still of the run before."""
        carrier = self._runs.carrier()
        if carrier is not None:
            message.options[HEADER] = carrier

    def before_process_message(self, broker: Any, message: Any) -> None:
        """Makes the run of a message current."""
        run = self._runs.run_of(message.options.get(HEADER), message.actor_name, message.message_id)
        if run is not None:
            self._open[id(message)] = JobAttempt(run)

    def after_process_message(self, broker: Any, message: Any, *, result: Any = None, exception: Any = None) -> None:
        """Ends what is open of it."""
        attempt = self._open.pop(id(message), None)
        if attempt is not None:
            attempt.end(exception)

    def after_skip_message(self, broker: Any, message: Any) -> None:
        """Ends what is open of it: another middleware, such as an age limit, kept it from being processed."""
        self.after_process_message(broker, message)


class _InnermostMiddleware(_Middleware):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]
    """The step, around the actor alone."""

    def __init__(self, runs: JobRuns[Any], open_attempts: dict[int, JobAttempt]) -> None:
        self._runs = runs
        self._open = open_attempts

    def before_process_message(self, broker: Any, message: Any) -> None:
        """Begins it, unless another middleware has failed the message: its actor is not called then."""
        attempt = self._open.get(id(message))
        if attempt is not None and not message.failed:
            attempt.begin_step(self._runs.step_of(attempt.run, message))

    def after_process_message(self, broker: Any, message: Any, *, result: Any = None, exception: Any = None) -> None:
        """Ends it, before a retry is sent."""
        attempt = self._open.get(id(message))
        if attempt is not None:
            attempt.end_step(exception)


_connected: Final[WeakKeyDictionary[Any, tuple[Any, ...]]] = WeakKeyDictionary()


def connect(
    client: FailpathClient,
    broker: Any,
    *,
    flows: Mapping[str, Flow] | None = None,
    step_key: StepKeyOf[Any] | None = None,
) -> None:
    """Lets messages of a Dramatiq broker go on with the run of whoever sends them. Call it where the broker is made.

    It adds middleware in front of and behind that which is there, so add your own before. Called again for the same broker, it
    takes the place of the call before, which is warned of.

    ::

        failpath = FailpathClient()
        connect(failpath, broker)

        with failpath.run("checkout", run_id=order.id):
            ship.send(order.id)  # its steps, in the worker, are steps of this run and of this trace

    Args:
        client: The client whose runs are sent along and gone on with.
        broker: The broker, with its middleware.
        flows: Name of an actor → flow, for messages that nobody sends from within a run. The run's id is the message's.
        step_key: Gives the key of the step that a message as a whole is, or ``None``; ``lambda message: message.actor_name``
            makes each message a step. Without it only what the actor itself says is a step. A retry is a further attempt.

    Raises:
        ConfigError: An argument is of another kind than these.
    """
    runs: JobRuns[Any] = JobRuns(client, flows, step_key)
    before = _connected.pop(broker, ())
    if before:
        warn_once("dramatiq-again", "connect() was called again for the same broker: the last call counts")
        broker.middleware[:] = [one for one in broker.middleware if one not in before]
    open_attempts: dict[int, JobAttempt] = {}
    outermost, innermost = _OutermostMiddleware(runs, open_attempts), _InnermostMiddleware(runs, open_attempts)
    if broker.middleware:
        broker.add_middleware(outermost, before=type(broker.middleware[0]))
    else:
        broker.add_middleware(outermost)
    broker.add_middleware(innermost)
    _connected[broker] = (outermost, innermost)
