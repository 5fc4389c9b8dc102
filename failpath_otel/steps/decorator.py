"""Functions of every kind as functions of the same kind, each call of which is a step."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, ParamSpec, TypeVar, cast

from failpath_otel.steps.execution import NOTHING, Execution, call

P = ParamSpec("P")
R = TypeVar("R")
Begin = Callable[[], Execution]
"""Makes the execution of one call."""


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
        if execution is NOTHING:
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
