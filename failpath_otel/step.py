"""Step: a named unit of work, as a block, as a decorator, or around a call."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from opentelemetry.trace import INVALID_SPAN, Span

from failpath_otel.attempt import Attempt, RunFacts
from failpath_otel.errors import DeliveryError
from failpath_otel.events.metadata import Rendered, render
from failpath_otel.events.step import StepEvent
from failpath_otel.notices import warn_once
from failpath_otel.recorder import Recorder

P = ParamSpec("P")
R = TypeVar("R")


class StepSource(Protocol):
    """What a step needs of its run."""

    @property
    def recorder(self) -> Recorder:
        """What the steps of one client share."""
        ...

    @property
    def facts(self) -> RunFacts:
        """What every step of the run needs."""
        ...


class Step:
    """A step that is yet to begin: a sync and async context manager, and a decorator for functions of every kind.

    As a block it begins at the ``with`` and ends with the block: ``success``, or ``error`` where a `BaseException` leaves it,
    which goes on unchanged. As a decorator it begins and ends with each call, for generators with each iteration.
    A block may be entered again after it ended, which is another attempt.
    """

    __slots__ = ("_ended", "_find_source", "_metadata", "_open", "_step_key")

    def __init__(self, find_source: Callable[[], StepSource | None], step_key: str, metadata: Mapping[str, Any] | None) -> None:
        self._find_source = find_source
        self._step_key = step_key
        self._metadata: Rendered = {} if metadata is None else render(metadata)
        # One Step may be entered by several threads and tasks, each of which leaves its own block.
        self._open: list[tuple[object, Execution]] = []
        self._ended = False

    def __repr__(self) -> str:
        return f"Step({self._step_key!r})"

    @property
    def step_key(self) -> str:
        """The step's key within the flow."""
        return self._step_key

    @property
    def span(self) -> Span:
        """The OpenTelemetry span of the running step; an invalid, inert one before it begins and where nothing is recorded."""
        execution = self._innermost()
        return INVALID_SPAN if execution is None else execution.span

    def set_metadata(self, **values: Any) -> None:
        """Adds metadata to the outcome and, unless ``metadata_on_spans`` is off, to the span. Values are taken now."""
        execution = self._innermost()
        if execution is not None:
            execution.set_metadata(values)
            return
        if self._ended:
            warn_once("late-metadata", "set_metadata on step %r came after its end: kept for a next attempt", self._step_key)
        self._metadata = {**self._metadata, **render(values)}

    def __enter__(self) -> Step:
        execution = self._begin()
        execution.start()
        self._open.append((_whose(), execution))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        execution = self._innermost(leave=True)
        if execution is not None:
            execution.finish(error)

    async def __aenter__(self) -> Step:
        execution = self._begin()
        await execution.start_async()
        self._open.append((_whose(), execution))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        execution = self._innermost(leave=True)
        if execution is not None:
            await execution.finish_async(error)

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Decorates ``fn``: each call is a step. Sync, async, generator and asynchronous generator functions."""
        return decorate(fn, self._begin)

    def _innermost(self, *, leave: bool = False) -> Execution | None:
        if not self._open:
            return None
        whose = _whose() if len(self._open) > 1 else None
        found = next((entry for entry in reversed(self._open) if entry[0] == whose), self._open[-1])
        if leave:
            self._open.remove(found)
            self._ended = True
        return found[1]

    def _begin(self) -> Execution:
        source = self._find_source()
        if source is None or not source.recorder.enabled:
            return _NOTHING
        recorder = source.recorder
        return Execution(recorder, source.facts, self._step_key, self._metadata)


def _whose() -> object:
    """Whose block this is: the thread's, or the asyncio task's."""
    # Outside of an event loop current_task() raises, which costs more than to ask first.
    return threading.get_ident() if asyncio._get_running_loop() is None else asyncio.current_task()  # noqa: SLF001


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


_NOTHING = _Nothing()

Begin = Callable[[], Execution]


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


def decorate(fn: Callable[P, R], begin: Begin) -> Callable[P, R]:
    """``fn`` as a function of the same kind, each call of which is a step."""
    if inspect.isasyncgenfunction(fn):
        wrap = _async_generator_wrapper
    elif inspect.iscoroutinefunction(fn):
        wrap = _coroutine_wrapper
    elif inspect.isgeneratorfunction(fn):
        wrap = _generator_wrapper
    else:
        wrap = _function_wrapper
    return cast("Callable[P, R]", functools.wraps(fn)(wrap(fn, begin)))


def _function_wrapper(fn: Callable[..., Any], begin: Begin) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        execution = begin()
        if execution is _NOTHING:
            return fn(*args, **kwargs)
        return call(execution, lambda: fn(*args, **kwargs))

    return wrapper


def _coroutine_wrapper(fn: Callable[..., Any], begin: Begin) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        execution = begin()
        await execution.start_async()
        try:
            value = await fn(*args, **kwargs)
        except BaseException as error:
            await execution.finish_async(error)
            raise
        await execution.finish_async(None)
        return value

    return wrapper


def _generator_wrapper(fn: Callable[..., Any], begin: Begin) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        execution = begin()
        execution.start()
        resume: Callable[[], Any]
        try:
            inner = fn(*args, **kwargs)
            resume = functools.partial(next, inner)
            while True:
                item = resume()
                execution.suspend()
                try:
                    resume = functools.partial(inner.send, (yield item))
                except GeneratorExit:
                    execution.resume()
                    inner.close()
                    execution.finish(None)  # closed early: the consumer had enough, and nothing failed
                    raise
                except BaseException as error:
                    resume = functools.partial(inner.throw, error)
                execution.resume()
        except StopIteration as stop:
            execution.finish(None)
            return stop.value
        except BaseException as error:
            execution.finish(error)  # does nothing after an early close
            raise

    return wrapper


def _async_generator_wrapper(fn: Callable[..., Any], begin: Begin) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        execution = begin()
        await execution.start_async()
        resume: Callable[[], Any]
        try:
            inner = fn(*args, **kwargs)
            resume = functools.partial(inner.asend, None)
            while True:
                item = await resume()
                execution.suspend()
                try:
                    resume = functools.partial(inner.asend, (yield item))
                except GeneratorExit:
                    execution.resume()
                    await inner.aclose()
                    await execution.finish_async(None)
                    raise
                except BaseException as error:
                    resume = functools.partial(inner.athrow, error)
                execution.resume()
        except StopAsyncIteration:
            await execution.finish_async(None)
        except BaseException as error:
            await execution.finish_async(error)
            raise

    return wrapper


def outside_a_run(step_key: str) -> None:
    """Says once that a step ran where there is no current run, so that nothing is recorded of it."""
    warn_once(
        f"no-run:{step_key}",
        "step %r ran outside of a run, so nothing is recorded of it; put the call under 'with client.run(...):'",
        step_key,
    )
