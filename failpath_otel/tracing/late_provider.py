"""A tracer provider that is set after a client was made: whoever waits for it is called at that moment.

OpenTelemetry tells nobody that a provider is set. A service that opens runs meets it at the next one; a service whose steps are
all spans of libraries calls nothing of ours, so the one place through which providers come is wrapped, once for a process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, Protocol

from opentelemetry import trace

from failpath_otel.interruption import is_interruption
from failpath_otel.notices import warn_once


class Waiting(Protocol):
    """Whoever waits for a provider."""

    def tracer(self) -> object:
        """Looks at the provider of the moment; called when one was set."""


_PLACES: Final = ("_set_tracer_provider", "set_tracer_provider")
"""Where providers come through. The first serves also those who imported the second by name; it is not public, so it may be
gone one day, and then the second is better than nothing."""

_waiting: dict[int, Waiting] = {}


def await_provider(waiting: Waiting) -> None:
    """Has ``waiting`` look at the provider once one is set; does nothing where that has happened."""
    if not _none_is_set():
        return
    # Held until then: a service may make a client in one line and keep no name for it.
    _waiting[id(waiting)] = waiting
    _watch()
    # Another thread may have set one in between.
    if not _none_is_set():
        _call_waiting()


def forget(waiting: Waiting) -> None:
    """Ends `await_provider`."""
    _waiting.pop(id(waiting), None)


def forget_all() -> None:
    """Ends every `await_provider`; for tests."""
    _waiting.clear()


def _none_is_set() -> bool:
    try:
        return isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    except Exception as error:  # OTEL_PYTHON_TRACER_PROVIDER names one that cannot be loaded, which Tracing has warned of
        if is_interruption(error):
            raise
        return False


def _watch() -> None:
    module: Any = trace
    place = next((place for place in _PLACES if callable(getattr(module, place, None))), None)
    if place is not None and not hasattr(getattr(module, place), "calls_failpath"):
        setattr(module, place, _calling(getattr(module, place)))


def _calling(set_provider: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(set_provider)
    def set_and_call(*args: Any, **kwargs: Any) -> Any:
        given = set_provider(*args, **kwargs)
        _call_waiting()
        return given

    set_and_call.calls_failpath = True  # type: ignore[attr-defined]  # a mark of our own
    return set_and_call


def _call_waiting() -> None:
    try:
        for waiting in list(_waiting.values()):
            forget(waiting)
            waiting.tracer()
    except Exception as error:  # whoever sets a provider is the service
        if is_interruption(error):
            raise
        warn_once("arrival", "a tracer provider that was set late could not be looked at", exc_info=True)
