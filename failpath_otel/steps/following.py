"""What a step's function returned, followed to its end where that is yet to come, and passed on unchanged where it can be."""

from __future__ import annotations

import asyncio
import inspect
import sys
import types
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent import futures
from functools import partial
from typing import Any, Final, TypeVar, cast

from failpath_otel.interruption import is_interruption
from failpath_otel.notices import warn_once
from failpath_otel.steps.execution import Execution

R = TypeVar("R")

_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict, set})


def follow(execution: Execution, result: Any, step_key: str) -> Any:
    """What the caller is given for ``result``, the value of a begun step's function.

    A coroutine or generator is passed on as one of ours that ends the step where it ends. A future or task is passed on as it
    is, and the step ends when it is done. All else ends the step at once, and is passed on as it is: objects that can be
    awaited but are more than that (aiohttp's requests, asyncpg's acquires, references to remote results) would lose the rest
    in a wrapper.
    """
    # Of the type, not of ``__class__``: a lazy proxy would do its work if it were asked.
    kind: type[Any] = type(result)  # pyright: ignore[reportUnknownVariableType]
    if kind in _PLAIN:
        execution.finish(None)
        return result
    if kind is types.CoroutineType:
        return _handed_over(execution, awaited, result)
    if kind is types.GeneratorType:
        is_coroutine = result.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE
        return _handed_over(execution, iterated_coroutine if is_coroutine else iterated, result)
    if kind is types.AsyncGeneratorType:
        return _handed_over(execution, iterated_async, result)
    if hasattr(kind, "_asyncio_future_blocking") or issubclass(kind, futures.Future):
        _end_with(execution, result)
    elif not hasattr(kind, "__await__"):
        execution.finish(None)
    elif not hasattr(kind, "__aenter__") and issubclass(kind, Coroutine):  # one that is compiled, by Cython for example
        return _handed_over(execution, awaited, result)
    else:
        execution.finish(None)
        warn_once(
            f"awaitable:{step_key}",
            "step %r ended with its call: it returned a %s.%s, which can be awaited but not followed; await it within an async "
            "function that is the step",
            step_key,
            kind.__module__,
            kind.__qualname__,
        )
    return result


def _handed_over(execution: Execution, wrap: Callable[[Execution, Any], R], result: Any) -> R:
    execution.hand_over() if wrap is awaited else execution.suspend()
    return named_after(wrap(execution, result), result)


def named_after(ours: R, inner: Any) -> R:
    """``ours``, a coroutine or generator, with the names of the one that it wraps, by which tasks and warnings name it."""
    named = cast("Any", ours)
    named.__name__, named.__qualname__ = getattr(inner, "__name__", "step"), getattr(inner, "__qualname__", "step")
    return ours


def _body(execution: Execution, inner: Any, itself: list[weakref.ref[Any]]) -> Generator[Any, Any, Any]:
    """The body of `awaited`. ``inner`` is awaited by ``yield from``, which in a coroutine is the same."""
    __tracebackhide__ = True
    try:
        yield
    except GeneratorExit:
        if itself[0]() is not None:
            inner.close()  # closed by somebody, as ours was, and not dropped: of that Python warns, by inner's name
        execution.leave_at_once(asyncio.CancelledError("the coroutine was never awaited"))
        raise
    except BaseException as error:
        inner.close()  # cancelled before its first step: it will never be awaited, which is not its author's fault
        execution.leave_at_once(error)
        raise
    try:
        yield from execution.send_start().__await__()
    except BaseException as error:
        inner.close()
        yield from execution.leave_async(error).__await__()
        raise
    try:
        execution.resume()
        value = yield from cast("Generator[Any, Any, Any]", inner.__await__())
        yield from execution.finish_async(None).__await__()
    except BaseException as error:
        yield from execution.leave_async(error).__await__()
        raise
    return value


# A coroutine that is cancelled or dropped before its first step runs no line of its own, and its step would stay open. So ours
# has made its first step when it is handed over, up to a bare yield, which no ``async def`` can have (one that stands at an
# ``await`` cannot be awaited by others). As `types.coroutine` does, this makes another kind of function by a flag of its code.
_coroutine: Callable[..., Any] = types.FunctionType(
    _body.__code__.replace(co_flags=_body.__code__.co_flags & ~inspect.CO_GENERATOR | inspect.CO_COROUTINE), globals()
)


def awaited(execution: Execution, inner: Coroutine[Any, Any, R]) -> Coroutine[Any, Any, R]:
    """``inner`` as a coroutine that ends its begun step, whatever becomes of it."""
    itself: list[weakref.ref[Any]] = []
    ours = cast("Coroutine[Any, Any, R]", _coroutine(execution, inner, itself))
    itself.append(weakref.ref(ours))
    ours.send(None)
    return ours


def iterated(execution: Execution, inner: Generator[Any, Any, R]) -> Generator[Any, Any, R]:
    """``inner`` as a generator that is a step: it begins with the first value, unless it has begun, and ends with the last.

    Closed early it is a success: the consumer had enough, and nothing failed. Between two values the consumer's context is
    current.
    """
    __tracebackhide__ = True
    try:
        execution.start_or_resume()
        resume: Callable[[], Any] = partial(next, inner)
        while True:
            try:
                item = resume()
            except StopIteration as stop:
                execution.finish(None)
                return cast("R", stop.value)
            execution.suspend()
            try:
                resume = partial(inner.send, (yield item))
            except GeneratorExit as closing:
                execution.resume()
                try:
                    inner.throw(closing)
                except StopIteration as stop:  # it ends in its own way, with a value that `close` returns from Python 3.13 on
                    execution.finish(None)
                    return cast("R", stop.value)
                except GeneratorExit:
                    execution.finish(None)
                    raise
                raise RuntimeError("generator ignored GeneratorExit") from None
            except BaseException as error:
                resume = partial(inner.throw, error)
            execution.resume()
    except BaseException as error:
        execution.leave(error)  # does nothing after an early close
        raise


@types.coroutine
def iterated_coroutine(execution: Execution, inner: Generator[Any, Any, R]) -> Generator[Any, Any, R]:
    """The same for a generator that can be awaited, as those of `types.coroutine`."""
    return (yield from iterated(execution, inner))


async def iterated_async(execution: Execution, inner: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    """The same for an asynchronous generator."""
    __tracebackhide__ = True
    try:
        await execution.start_or_resume_async()
        resume: Callable[[], Any] = partial(_first_of, inner)
        while True:
            try:
                item = await resume()
            except StopAsyncIteration:
                break
            execution.suspend()
            try:
                resume = partial(inner.asend, (yield item))
            except GeneratorExit:
                execution.resume()
                await inner.aclose()
                await execution.finish_async(None)
                raise
            except BaseException as error:
                resume = partial(inner.athrow, error)
            execution.resume()
        await execution.finish_async(None)
    except BaseException as error:
        await execution.leave_async(error)
        raise


def _first_of(inner: AsyncGenerator[Any, Any]) -> Any:
    """The first step of ``inner``, of which the event loop does not learn: it knows ours, by which ``inner`` is closed.

    At its end a loop closes all that it knows, at once, and this one is not to be closed twice. What is done where it is
    dropped stays.
    """
    hooks = sys.get_asyncgen_hooks()
    try:
        sys.set_asyncgen_hooks(None, hooks.finalizer)
        return inner.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _end_with(execution: Execution, future: Any) -> None:
    if future.done():
        execution.finish(_exception_of(future))
        return
    execution.hand_over()

    def done(ended: Any) -> None:
        execution.leave_at_once(_exception_of(ended))

    loop = _loop_of(future)
    if loop is None or loop is asyncio._get_running_loop():  # noqa: SLF001 - get_running_loop() raises where there is none
        future.add_done_callback(done)
        return
    try:
        loop.call_soon_threadsafe(future.add_done_callback, done)
    except RuntimeError as error:
        if is_interruption(error):
            raise
        execution.leave_at_once(asyncio.CancelledError("the event loop of what the step returned is closed"))


def _loop_of(future: Any) -> Any:
    """The event loop that a future belongs to; those that only look like asyncio's may have less than these."""
    if issubclass(type(future), futures.Future):
        return None
    get_loop = getattr(future, "get_loop", None)
    return getattr(future, "_loop", None) if get_loop is None else get_loop()


def _exception_of(future: Any) -> BaseException | None:
    if future.cancelled():
        return asyncio.CancelledError()
    if hasattr(future, "_exception"):
        # Asked for by its method, the exception would count as retrieved, and asyncio would not tell of one that nobody sees.
        return cast("BaseException | None", future._exception)  # noqa: SLF001
    return cast("BaseException | None", future.exception())
