"""Execution: one attempt of a step together with the delivery of its events."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.trace import INVALID_SPAN, Span

from failpath_otel.delivery import process
from failpath_otel.errors import DeliveryError
from failpath_otel.events.metadata import Rendered
from failpath_otel.events.step import StepEvent
from failpath_otel.steps.attempt import Attempt, RunFacts, handed_over
from failpath_otel.steps.recorder import Recorder


class Execution:
    """One attempt together with its delivery: what ``raise_on_send_error`` asks for is raised at the end of it.

    An exception that comes from outside (a time limit, an alarm) may interrupt any of this, at any line, and passes. Whoever
    called then calls `leave` with it, which does what is left to do: no attempt stays open, and what is told may be told
    twice, under the same id, but is not lost.

    """

    __slots__ = ("__weakref__", "_attempt", "_begun", "_failure", "_metadata", "_recorder", "_unsent")

    def __init__(self, recorder: Recorder, run: RunFacts, step_key: str, metadata: Rendered) -> None:
        self._recorder = recorder
        self._metadata = metadata
        self._attempt = Attempt(recorder, run, step_key, metadata)
        self._failure: DeliveryError | None = None
        self._unsent: StepEvent | None = None
        self._begun = False

    @property
    def span(self) -> Span:
        """The attempt's span."""
        return self._attempt.span

    @property
    def attempt(self) -> Attempt | None:
        """What this is the delivery of; ``None`` where nothing is recorded."""
        return self._attempt

    def set_metadata(self, values: Mapping[str, Any]) -> None:
        """Adds metadata, taken now."""
        self._attempt.set_metadata(self._recorder.metadata(values))

    def take_run(self) -> None:
        """Has the body run in the run of this moment, wherever it begins."""
        self._attempt.called_in = otel_context.get_current()

    def detach(self) -> str:
        """Leaves the end of the attempt to whoever has the token that this returns."""
        return self._attempt.detach()

    # Beginning

    def start(self) -> None:
        """Begins the attempt."""
        self._failure = self._recorder.emit(self._begin())
        self._begun = True

    async def start_async(self) -> None:
        """Like `start`."""
        self._unsent = self._begin()
        await self.send_start()

    def start_call(self) -> None:
        """Like `start`, but where waiting would hold up an event loop, `send_start` or the end sends the event.

        What is called may turn out to be a coroutine function, whose body only runs after `send_start`.
        """
        if self._recorder.waits and self._recorder.would_hold_up_a_loop:
            self._unsent = self._begin()
            self._begun = True
        else:
            self.start()

    def start_or_resume(self) -> None:
        """Begins the attempt, or makes its context current where it has begun."""
        if self._attempt.is_new:
            self.start()
        else:
            self._attempt.resume()

    async def start_or_resume_async(self) -> None:
        """Like `start_or_resume`."""
        if self._attempt.is_new:
            await self.start_async()
        else:
            await self.send_start()
            self._attempt.resume()

    async def send_start(self) -> None:
        """Sends the start, where that is not done yet."""
        event, self._unsent = self._unsent, None
        if event is not None:
            self._begun = False
            self._failure = await self._recorder.emit_async(event)
        self._begun = True

    # Ending

    def finish(self, error: BaseException | None) -> None:
        """Ends the attempt.

        Raises:
            DeliveryError: Where ``raise_on_send_error`` asks for it and no exception of the application is on its way.
        """
        if self._unsent is not None:
            event, self._unsent = self._unsent, None
            self._failure = self._recorder.emit(event)
        failure = self._recorder.emit(self._attempt.end(error))
        self._attempt.told()
        if failure is not None or self._failure is not None:
            self._raise(failure, error)

    async def finish_async(self, error: BaseException | None) -> None:
        """Like `finish`."""
        failure = await self._recorder.emit_async(self._attempt.end(error))
        self._attempt.told()
        if failure is not None or self._failure is not None:
            self._raise(failure, error)

    def leave(self, error: BaseException) -> None:
        """What is left to do as ``error`` leaves: ends the attempt, or goes on with an end that this interrupted."""
        attempt = self._attempt
        if attempt.is_open:
            attempt.restore()
            # What interrupts or cancels the wait for the start is not to wait for the outcome.
            self.finish(error) if self._begun else self.leave_at_once(error)
        elif attempt.is_ending:
            attempt.restore()
            self._recorder.emit_again(attempt.end(error))
            attempt.told()

    async def leave_async(self, error: BaseException) -> None:
        """Like `leave`. A coroutine that is closed cannot wait any more; its step ends as one that is cancelled."""
        if isinstance(error, GeneratorExit):
            self.leave_at_once(asyncio.CancelledError("the coroutine was closed"))
        elif self._attempt.is_open and self._begun:
            await self.finish_async(error)
        else:
            self.leave(error)

    def leave_at_once(self, error: BaseException | None) -> None:
        """Ends the attempt where nothing can be waited for: in a callback of an event loop, or as a coroutine is closed."""
        if self._unsent is not None:
            event, self._unsent = self._unsent, None
            self._recorder.emit(event, wait=False)
        self._recorder.emit(self._attempt.end(error), wait=False)
        self._attempt.told()

    # The context of the body

    def resume(self) -> None:
        """Makes the body's context current."""
        self._attempt.resume()

    def suspend(self) -> None:
        """Makes the caller's context current, and remembers the body's."""
        self._attempt.suspend(keep=True)

    def hand_over(self) -> None:
        """Like `suspend`, where the caller is given what will end the attempt."""
        handed_over.add(self._attempt)
        self.suspend()

    def _begin(self) -> StepEvent | None:
        # Not __del__: that would run for every step, and what interrupts a finalizer is lost.
        self._attempt.guard = weakref.ref(self, self._attempt.dropped)
        return self._attempt.start(self._metadata)

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

    @property
    def attempt(self) -> Attempt | None:
        return None

    def set_metadata(self, values: Mapping[str, Any]) -> None:
        pass

    def take_run(self) -> None:
        pass

    def detach(self) -> str:
        return ""

    def start(self) -> None:
        pass

    async def start_async(self) -> None:
        pass

    def start_call(self) -> None:
        pass

    def start_or_resume(self) -> None:
        pass

    async def start_or_resume_async(self) -> None:
        pass

    async def send_start(self) -> None:
        pass

    def finish(self, error: BaseException | None) -> None:
        pass

    async def finish_async(self, error: BaseException | None) -> None:
        pass

    def leave(self, error: BaseException) -> None:
        pass

    async def leave_async(self, error: BaseException) -> None:
        pass

    def leave_at_once(self, error: BaseException | None) -> None:
        pass

    def resume(self) -> None:
        pass

    def suspend(self) -> None:
        pass


def _end_handed_over() -> None:
    """Ends what the caller was given and will never end any more: Python closes coroutines after all that is sent is sent."""
    for attempt in tuple(handed_over):
        attempt.dropped(None)


process.before_the_end(_end_handed_over)

NOTHING = _Nothing()
"""What a step that is not recorded executes."""
