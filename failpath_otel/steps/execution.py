"""Execution: one attempt of a step together with the delivery of its events; and calling a function as one."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast

from opentelemetry.trace import INVALID_SPAN, Span

from failpath_otel.errors import DeliveryError
from failpath_otel.events.metadata import Rendered
from failpath_otel.events.step import StepEvent
from failpath_otel.steps.attempt import Attempt, RunFacts
from failpath_otel.steps.recorder import Recorder

R = TypeVar("R")


class Execution:
    """One attempt together with its delivery: what ``raise_on_send_error`` asks for is raised at the end of it."""

    __slots__ = ("_attempt", "_failure", "_metadata", "_recorder", "_unsent")

    def __init__(self, recorder: Recorder, run: RunFacts, step_key: str, metadata: Rendered) -> None:
        self._recorder = recorder
        self._metadata = metadata
        self._attempt = Attempt(recorder, run, step_key, metadata)
        self._failure: DeliveryError | None = None
        self._unsent: StepEvent | None = None

    @property
    def span(self) -> Span:
        """The attempt's span."""
        return self._attempt.span

    def set_metadata(self, values: Mapping[str, Any]) -> None:
        """Adds metadata, taken now."""
        self._attempt.set_metadata(self._recorder.metadata(values))

    def detach(self) -> str:
        """Leaves the end of the attempt to whoever has the token that this returns."""
        return self._attempt.detach()

    def start(self) -> None:
        """Begins the attempt. Interrupted while it waits for delivery, it ends the attempt before that goes on."""
        event = self._attempt.start(self._metadata)
        try:
            self._failure = self._recorder.emit(event)
        except BaseException as error:
            self.finish(error)
            raise

    async def start_async(self) -> None:
        """Like `start`."""
        self._unsent = self._attempt.start(self._metadata)
        await self.send_start()

    def start_call(self) -> None:
        """Like `start`, but where waiting would hold up an event loop, `send_start` or the end sends the event.

        What is called may turn out to be a coroutine function, whose body only runs after `send_start`.
        """
        if self._recorder.waits and self._recorder.would_hold_up_a_loop:
            self._unsent = self._attempt.start(self._metadata)
        else:
            self.start()

    async def send_start(self) -> None:
        """Sends the start, where that is not done yet."""
        event, self._unsent = self._unsent, None
        if event is None:
            return
        try:
            self._failure = await self._recorder.emit_async(event)
        except BaseException as error:
            # A cancellation, say. The loop is not to be held up by its own end either.
            self._recorder.emit(self._attempt.end(error), wait=False)
            raise

    def finish(self, error: BaseException | None) -> None:
        """Ends the attempt.

        Raises:
            DeliveryError: Where ``raise_on_send_error`` asks for it and no exception of the application is on its way.
        """
        if self._unsent is not None:
            event, self._unsent = self._unsent, None
            self._failure = self._recorder.emit(event)
        failure = self._recorder.emit(self._attempt.end(error))
        if failure is not None or self._failure is not None:
            self._raise(failure, error)

    async def finish_async(self, error: BaseException | None) -> None:
        """Like `finish`."""
        failure = await self._recorder.emit_async(self._attempt.end(error))
        if failure is not None or self._failure is not None:
            self._raise(failure, error)

    def resume(self) -> None:
        """Makes the body's context current."""
        self._attempt.resume()

    def suspend(self) -> None:
        """Makes the caller's context current, and remembers the body's."""
        self._attempt.suspend(keep=True)

    def _raise(self, failure: DeliveryError | None, error: BaseException | None) -> None:
        failure = self._failure or failure
        if failure is not None and error is None and self._recorder.raise_on_send_error:
            raise failure


class _Nothing(Execution):
    """The execution of a step that is not recorded."""

    __slots__ = ()

    def __init__(self) -> None:  # deliberately without an attempt
        pass

    @property
    def span(self) -> Span:
        return INVALID_SPAN

    def set_metadata(self, values: Mapping[str, Any]) -> None:
        pass

    def detach(self) -> str:
        return ""

    def start(self) -> None:
        pass

    async def start_async(self) -> None:
        pass

    def start_call(self) -> None:
        pass

    async def send_start(self) -> None:
        pass

    def finish(self, error: BaseException | None) -> None:
        pass

    async def finish_async(self, error: BaseException | None) -> None:
        pass

    def resume(self) -> None:
        pass

    def suspend(self) -> None:
        pass


NOTHING = _Nothing()
"""What a step that is not recorded executes."""


def call(execution: Execution, fn: Callable[[], Any]) -> Any:
    """Runs ``fn`` as a step and passes its value through; an awaitable is passed on as one that ends the step."""
    execution.start_call()
    try:
        result = fn()
    except BaseException as error:
        execution.finish(error)
        raise
    # Of the type, not of ``__class__``: a lazy proxy would do its work if it were asked.
    if result is not None and hasattr(type(cast("object", result)), "__await__"):
        execution.suspend()
        return _awaited(execution, result)
    execution.finish(None)
    return result


async def _awaited(execution: Execution, result: Awaitable[R]) -> R:
    try:
        await execution.send_start()
    except BaseException:
        if inspect.iscoroutine(result):
            result.close()  # it will never be awaited, which is not its author's fault
        raise
    execution.resume()
    try:
        value = await result
    except BaseException as error:
        await execution.finish_async(error)
        raise
    await execution.finish_async(None)
    return value
