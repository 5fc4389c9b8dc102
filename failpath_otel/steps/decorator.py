"""Functions of every kind as functions of the same kind, each call of which is a step."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast

from failpath_otel.steps.execution import NOTHING, Execution
from failpath_otel.steps.following import follow, iterated, iterated_async, named_after

P = ParamSpec("P")
R = TypeVar("R")
Begin = Callable[[], Execution]
"""Makes the execution of one call."""


def decorate(fn: Callable[P, R], begin: Begin, step_key: str) -> Callable[P, R]:
    """``fn`` as a function of the same kind, each call of which is a step."""
    if inspect.isasyncgenfunction(fn):
        return cast("Callable[P, R]", _GeneratorFunction(fn, begin, iterated_async))
    if inspect.isgeneratorfunction(fn):
        return cast("Callable[P, R]", _GeneratorFunction(fn, begin, iterated))
    wrap = _coroutine_wrapper(fn, begin) if inspect.iscoroutinefunction(fn) else _function_wrapper(fn, begin, step_key)
    return cast("Callable[P, R]", functools.wraps(fn)(wrap))


# Each of these is one frame of the traceback, and pytest leaves it out. There is no way to have none.


def _function_wrapper(fn: Callable[..., Any], begin: Begin, step_key: str) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        execution = begin()
        if execution is NOTHING:
            return fn(*args, **kwargs)
        try:
            try:
                execution.start_call()
                return follow(execution, fn(*args, **kwargs), step_key)
            except BaseException as error:
                execution.leave(error)
                raise
        except BaseException as error:
            execution.leave(error)  # does something only where an exception from outside interrupted the one above
            raise

    return wrapper


def _coroutine_wrapper(fn: Callable[..., Any], begin: Begin) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        execution = begin()
        try:
            await execution.start_async()
            value = await fn(*args, **kwargs)
            await execution.finish_async(None)
        except BaseException as error:
            await execution.leave_async(error)
            raise
        return value

    return wrapper


class _GeneratorFunction(Generic[P, R]):
    """A generator function of which each call is a step; `inspect` takes it for what it wraps.

    It is no function, for that would look for the run when the first value is asked for: a response that is streamed after
    the block of its run has ended would have none, or that of another. So the run is taken at the call.
    """

    def __init__(self, fn: Callable[P, R], begin: Begin, wrap: Callable[[Execution, Any], Any]) -> None:
        functools.update_wrapper(self, fn)
        # By these `inspect` takes an object for a function, and for one of this kind.
        function = cast("types.FunctionType", inspect.unwrap(fn))
        self.__code__ = function.__code__
        self.__defaults__ = function.__defaults__
        self.__kwdefaults__ = function.__kwdefaults__
        self._fn = fn
        self._begin = begin
        self._wrap = wrap

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        inner = self._fn(*args, **kwargs)
        execution = self._begin()
        if execution is NOTHING:
            return inner
        return cast("R", named_after(self._wrap(execution, inner), inner))

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<step {self._fn!r}>"

    def __reduce__(self) -> str:
        return self._fn.__qualname__  # as a function: by the name under which it is found
