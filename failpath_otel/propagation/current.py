"""The current run, carried in the OpenTelemetry context, and attaching contexts without noise."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import Token
from types import FrameType
from typing import Final, Protocol, cast

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from failpath_otel.events.translate import RunIdentity
from failpath_otel.interruption import is_interruption
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


# Which of the open blocks of a shared step or run an exit belongs to, is told by the frame that the block stands in: it enters
# and leaves it. Neither thread nor task nor context tells it: a synchronous dependency of FastAPI is entered and left in two
# threads and two contexts, a generator may be closed by anybody, and other libraries have tasks of their own. While a block is
# open its frame lives anyway; that of code which enters by hand is kept, so that it is not taken for another one in its place.
frame_above: Final[Callable[[int], FrameType]] = sys._getframe  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


class EnteredRun:
    """One entry of a ``with run:``. `leave` ends it, from whichever context.

    Attributes:
        run: The run that it made current.
        frame: Where the block stands.
        outside: The context around the block.
        left: True from its end on: a context that still has it, since the block was left in another, has no run by it.
    """

    __slots__ = ("_token", "frame", "left", "outside", "run")

    def __init__(self, run: AttachedRun, frame: FrameType) -> None:
        self.run = run
        self.frame = frame
        self.outside = otel_context.get_current()
        self.left = False
        self._token: Token[Context] | None = None

    def enter(self, within: Context) -> None:
        """Makes the run the current one, on top of ``within``."""
        self._token = otel_context.attach(otel_context.set_value(_CURRENT_RUN, self, within))

    def leave(self) -> None:
        """Ends the entry. In another context than it was made in there is nothing to restore; that one has no run any more."""
        self.left = True
        self.outside = _around(self)  # tasks that began within the block keep this; it is not to grow into a chain
        token, self._token = self._token, None
        if token is not None:
            detach(token)


def entered_run(within: Context | None = None) -> EnteredRun | None:
    """The innermost entry of a context (without one, the current) that is not left."""
    innermost = _innermost(within)
    if innermost is None or not innermost.left:
        return innermost
    around = _around(innermost)
    if within is None:
        _mend(around)
    return _innermost(around)


def attached_run(within: Context | None = None) -> AttachedRun | None:
    """The run that was attached last in a context (without one, the current), or ``None``."""
    found = entered_run(within)
    return None if found is None else found.run


def named_run(within: Context | None = None) -> RunIdentity | None:
    """Which run a context (without one, the current) belongs to: that attached in this process, else that of its baggage."""
    innermost = _innermost(within)
    if innermost is not None and innermost.left:
        within = _around(innermost)
        innermost = _innermost(within)
    return baggage.read(within) if innermost is None else RunIdentity(innermost.run.flow_key, innermost.run.run_id)


def _innermost(within: Context | None) -> EnteredRun | None:
    return cast("EnteredRun | None", otel_context.get_value(_CURRENT_RUN, within))


def _around(left: EnteredRun) -> Context:
    """The context around an entry that is left, and around those without it that are left too."""
    while (outer := _innermost(left.outside)) is not None and outer.left:
        left = outer
    return left.outside


def _mend(around: Context) -> None:
    """Gives the current context the run of the one around a block that was left elsewhere, such as a generator's.

    There is no moment at which the leaving could do that; this is the first one after it.
    """
    current = otel_context.get_current()
    otel_context.attach(otel_context.set_value(_CURRENT_RUN, _innermost(around), baggage.copy(around, current)))


def detach(token: Token[Context]) -> bool:
    """Ends an ``attach``; False where ``token`` belongs to another context.

    Where a block is left in another context than it was entered in (an asynchronous generator that another task closes),
    there is nothing to restore, and OpenTelemetry's own ``detach`` would log an error with a traceback.
    """
    try:
        token.var.reset(token)
    except (ValueError, RuntimeError) as error:  # another context's token, or one that was used already
        if is_interruption(error):
            raise
        return False
    except AttributeError:  # a runtime context of another kind, whose tokens are its own
        otel_context.detach(token)
    return True
