"""What is raised into our code from outside, such as time limits and alarms: which exceptions, and a lock that bears them."""

from __future__ import annotations

import dis
import functools
import signal
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType, FunctionType, TracebackType
from typing import Any, Final, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_RAISING: Final = frozenset(dis.opmap[name] for name in ("RAISE_VARARGS", "RERAISE") if name in dis.opmap)
_WITHOUT_WORDS: Final = (StopIteration, StopAsyncIteration, MemoryError, GeneratorExit)
_waits: set[CodeType] = set()


def only_waits(function: F) -> F:
    """Marks a function that raises nothing by itself: what leaves it, such as a time limit, came from outside."""
    _waits.add(function.__code__)
    return function


def is_interruption(error: BaseException) -> bool:
    """Whether a signal handler or another thread raised ``error`` while what we called was at work.

    It belongs to the application then: a guard of ours that keeps failures away from it lets it pass. To be asked where the
    exception is caught, for it goes by the traceback:

    - a frame that was given the frame below it is a signal handler (Celery's soft time limit, `signal.alarm`), and so is one
      whose code is that of a handler of this moment, which may have let go of what it was given;
    - an exception that stands at no ``raise``, and that no compiled function makes, was set from outside: by
      ``PyThreadState_SetAsyncExc``, as RQ's and Dramatiq's time limits do, or by a scheduler such as gevent's;
    - `only_waits` marks functions that fail in no other way.

    A doubt is settled for the application: an exception without arguments that C code raises in a sampler or a span processor
    of others passes, as it would beside a bare span.
    """
    trace = error.__traceback__
    if trace is None:
        return False
    before: FrameType | None = None
    called: set[CodeType] = set()
    while True:
        frame = trace.tb_frame
        if frame.f_code in _waits or (before is not None and _was_given(frame, before)):
            return True
        if before is not None:
            called.add(frame.f_code)
        if trace.tb_next is None:
            return (not _raised_at(trace) and _is_foreign(error)) or not called.isdisjoint(_signal_handlers())
        before, trace = frame, trace.tb_next


class SteadyLock:
    """A lock that no exception from outside leaves held; the thread that holds it may come again.

    It is no context manager, for there is none that would do: one written in Python may be interrupted in its ``__enter__``,
    and from Python 3.14 on an interruption may also come when ``__enter__`` has returned and the block has not begun.

    Attributes:
        is_held: Whether the calling thread holds it: it was interrupted then, in what it does under the lock.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # typeshed does not know this method, on which threading.Condition relies too.
        self.is_held: Callable[[], bool] = getattr(self._lock, "_is_owned")  # noqa: B009

    def run(self, function: Callable[..., T], *args: object) -> T:
        """Calls the function under the lock, and returns what it returns."""
        if self.is_held():
            return function(*args)
        try:
            self._lock.acquire()
            return function(*args)
        finally:
            # Whether it is held cannot be asked first: an interruption may come after the answer.
            try:
                self._lock.release()
            except RuntimeError as error:  # it was not
                if is_interruption(error):
                    raise

    def run_within(self, seconds: float, function: Callable[[], T]) -> T | None:
        """The same, or ``None`` where the lock cannot be had for so long or this thread holds it already."""
        if self.is_held():
            return None
        try:
            if self._lock.acquire(timeout=max(0.0, min(seconds, threading.TIMEOUT_MAX))):
                return function()
            return None
        finally:
            try:
                self._lock.release()
            except RuntimeError as error:
                if is_interruption(error):
                    raise


def _was_given(frame: FrameType, below: FrameType) -> bool:
    """Whether the frame below is among the arguments, as of a signal handler: no other call has it by nature."""
    count = frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount + 2
    names = frame.f_code.co_varnames[:count]
    values = frame.f_locals
    for name in names:
        value = values.get(name)
        if value is below or (type(value) is tuple and any(item is below for item in cast("tuple[object, ...]", value))):
            return True
    return False


def _signal_handlers() -> set[CodeType]:
    """The code of every function that a signal calls now."""
    codes: set[CodeType] = set()
    for number in range(1, signal.NSIG):
        handler: Any = signal.getsignal(number)
        while isinstance(handler, functools.partial):
            handler = cast("functools.partial[object]", handler).func
        for function in (handler, getattr(handler, "__call__", None)):  # noqa: B004
            code: Any = getattr(function, "__code__", None)
            if isinstance(code, CodeType):
                codes.add(code)
    return codes


def _raised_at(trace: TracebackType) -> bool:
    """Whether the frame stands at a ``raise``."""
    code = trace.tb_frame.f_code.co_code
    return 0 <= trace.tb_lasti < len(code) and code[trace.tb_lasti] in _RAISING


def _is_foreign(error: BaseException) -> bool:
    """Whether compiled code would not raise such an exception by itself.

    From outside comes a class, of which Python makes the exception without arguments. What has some all the same has them by
    an ``__init__`` of its own, as RQ's time limit does; those of the standard library, such as JSON's, get them where they are
    raised.
    """
    kind = type(error)
    if not error.args:
        return not isinstance(error, _WITHOUT_WORDS)
    return type(kind.__init__) is FunctionType and kind.__module__.partition(".")[0] not in sys.stdlib_module_names
