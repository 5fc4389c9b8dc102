"""Functions of every kind as functions of the same kind, each call of which is a step."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast

from failpath_otel.propagation.called import function_of, is_coroutine_function
from failpath_otel.steps.execution import NOTHING, Execution
from failpath_otel.steps.following import follow, iterated, iterated_async, iterated_coroutine, named_after

P = ParamSpec("P")
R = TypeVar("R")
Begin = Callable[[], Execution]
"""Makes the execution of one call."""


def decorate(fn: Callable[P, R], begin: Begin, step_key: str) -> Callable[P, R]:
    """``fn`` as a function of the same kind, each call of which is a step."""
    binding: Any = fn
    if issubclass(type(binding), classmethod | staticmethod):  # what it binds is the function
        return cast("Callable[P, R]", type(binding)(decorate(binding.__func__, begin, step_key)))
    function = function_of(fn)
    if inspect.isasyncgenfunction(function):
        return cast("Callable[P, R]", _GeneratorFunction(fn, begin, iterated_async))
    if inspect.isgeneratorfunction(function):
        is_coroutine = function.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE
        return cast("Callable[P, R]", _GeneratorFunction(fn, begin, iterated_coroutine if is_coroutine else iterated))
    wrap = _coroutine_wrapper(fn, begin) if is_coroutine_function(fn) else _function_wrapper(fn, begin, step_key)
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
    """A generator function of which each call is a step; others take it for a function, and `inspect` for one of its kind.

    It is none, for that would look for the run when the first value is asked for: a response that is streamed after
    the block of its run has ended would have none, or that of another. So the run is taken at the call.
    """

    def __init__(self, fn: Callable[P, R], begin: Begin, wrap: Callable[[Execution, Any], Any]) -> None:
        function = cast("types.FunctionType", function_of(fn))
        functools.update_wrapper(self, function)  # a partial has no name of its own
        functools.update_wrapper(self, fn)
        self.__code__ = function.__code__
        self.__defaults__ = function.__defaults__
        self.__kwdefaults__ = function.__kwdefaults__
        self.__globals__ = function.__globals__
        self.__closure__ = function.__closure__
        self._fn = fn
        self._begin = begin
        self._wrap = wrap

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What it says that it is: a class of pydantic's takes functions for methods, and all else for fields."""
        return types.FunctionType

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        inner = self._fn(*args, **kwargs)
        execution = self._begin()
        if execution is NOTHING:
            return inner
        execution.take_run()
        return cast("R", named_after(self._wrap(execution, inner), inner))

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<step {self._fn!r}>"

    def __reduce__(self) -> str:
        return str(cast("Any", self).__qualname__)  # as a function: by the name under which it is found
