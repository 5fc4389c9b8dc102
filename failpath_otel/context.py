"""The current run, carried in the OpenTelemetry context, and attaching contexts without noise."""

from __future__ import annotations

from contextvars import Token

from opentelemetry import context as otel_context
from opentelemetry.context import Context

_CURRENT_RUN = otel_context.create_key("failpath-current-run")


def attached_run() -> object:
    """What was attached last in this context, or ``None``."""
    return otel_context.get_value(_CURRENT_RUN)


def attach_run(run: object) -> Token[Context]:
    """Makes ``run`` the current one."""
    return otel_context.attach(otel_context.set_value(_CURRENT_RUN, run))


def detach(token: Token[Context]) -> bool:
    """Ends an ``attach``; False where ``token`` belongs to another context.

    Where a block is left in another context than it was entered in (an asynchronous generator that another task closes),
    there is nothing to restore, and OpenTelemetry's own ``detach`` would log an error with a traceback.
    """
    try:
        token.var.reset(token)
    except (ValueError, RuntimeError):  # another context's token, or one that was used already
        return False
    except AttributeError:  # a runtime context of another kind, whose tokens are its own
        otel_context.detach(token)
    return True
