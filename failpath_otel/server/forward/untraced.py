"""Own requests make no spans: they would come back to us."""

from __future__ import annotations

from typing import Final

from opentelemetry import context

# The same two names under which the SDK's instrumentations look, now and formerly.
_SUPPRESSED: Final = ("_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")


def untraced() -> None:
    """From now on no instrumentation makes spans in this context. A thread has a context of its own."""
    current = context.get_current()
    for name in _SUPPRESSED:
        current = context.set_value(getattr(context, name, name), True, current)
    context.attach(current)
