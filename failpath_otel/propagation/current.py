"""The current run, carried in the OpenTelemetry context, and attaching contexts without noise."""

from __future__ import annotations

from contextvars import Token
from typing import Protocol, cast

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from failpath_otel.events.translate import RunIdentity
from failpath_otel.propagation import baggage

_CURRENT_RUN = otel_context.create_key("failpath-current-run")


class AttachedRun(Protocol):
    """What is known here of a run that is attached."""

    @property
    def flow_key(self) -> str:
        """The flow's slug."""
        ...

    @property
    def run_id(self) -> str:
        """The run's id."""
        ...


def attached_run(within: Context | None = None) -> AttachedRun | None:
    """The run that was attached last in a context (without one, the current), or ``None``."""
    return cast("AttachedRun | None", otel_context.get_value(_CURRENT_RUN, within))


def named_run(within: Context | None = None) -> RunIdentity | None:
    """Which run a context (without one, the current) belongs to: that attached in this process, else that of its baggage."""
    run = attached_run(within)
    return baggage.read(within) if run is None else RunIdentity(run.flow_key, run.run_id)


def attach_run(run: AttachedRun, within: Context) -> Token[Context]:
    """Makes ``run`` the current one, on top of ``within``."""
    return otel_context.attach(otel_context.set_value(_CURRENT_RUN, run, within))


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
