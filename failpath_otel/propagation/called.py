"""Which function runs when something is called."""

from __future__ import annotations

import functools
import inspect
from typing import Any


def function_of(called: Any) -> Any:
    """What a call of ``called`` runs: itself, or the function behind a partial or an object with ``__call__``."""
    while isinstance(called, functools.partial):
        called = called.func
    if hasattr(called, "__code__"):
        return called
    kind: type[Any] = type(called)  # pyright: ignore[reportUnknownVariableType]
    return getattr(kind, "__call__", called)  # noqa: B004


def is_coroutine_function(called: Any) -> bool:
    """Whether a call gives a coroutine, as web frameworks ask it: also of an object whose ``__call__`` is ``async``."""
    return inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(function_of(called))
