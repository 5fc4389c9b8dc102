"""The current run, carried in the OpenTelemetry context, and attaching contexts without noise."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import FrameType
from typing import Final, Protocol, cast

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from failpath_otel.events.translate import RunIdentity
from failpath_otel.interruption import is_interruption
from failpath_otel.propagation import baggage

_CURRENT_RUN = otel_context.create_key("failpath-current-run")
_NOTHING: Final = Context()
_entered: Final[ContextVar[EnteredRun | None]] = ContextVar("failpath-entered-run", default=None)
"""Set and reset with each entry, since Python tells a context from its copies by the tokens of a variable alone."""


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
    """One entry of a ``with run:``. `leave` ends it, from whichever context; called again after an interruption, it goes on.

    Attributes:
        run: The run that it made current.
        frame: Where the block stands, while it is open.
        outside: The context around the block, as long as that is needed.
        astray: True where the block was left in another context than it was entered in, such as by a task that closes the
            generator of another one. That one then has a run that is over, which `entered_run` mends.
    """

    __slots__ = ("_inside", "_mark", "_token", "astray", "frame", "outside", "run")

    def __init__(self, run: AttachedRun, frame: FrameType) -> None:
        self.run = run
        self.frame: FrameType | None = frame
        self.outside = otel_context.get_current()
        self.astray = False
        self._inside: Context | None = None
        self._token: Token[Context] | None = None
        self._mark: Token[EnteredRun | None] | None = None

    def enter(self, within: Context) -> None:
        """Makes the run the current one, on top of ``within``."""
        self._inside = otel_context.set_value(_CURRENT_RUN, self, within)
        self._token = otel_context.attach(self._inside)
        self._mark = _entered.set(self)

    def leave(self) -> None:
        """Ends the entry. What began within it, a task for example, keeps the run, and nothing else."""
        if self._inside is None:
            return
        if self._token is not None:
            self.astray = not detach(self._token)
            self._token = None
        if otel_context.get_current() is self._inside:
            otel_context.attach(self.outside)  # an interruption came before the token, or with its use
        if not self.astray:
            self.is_here()
            self.outside = _NOTHING  # a task that began within the block keeps this entry; it is not to grow into a chain
        self._inside = None

    def is_here(self) -> bool:
        """Whether the code that asks runs in the very context that the block was entered in, not in a copy. True but once."""
        mark, self._mark = self._mark, None
        if mark is None:
            return False
        try:
            _entered.reset(mark)
        except (ValueError, RuntimeError) as error:  # another context's, or one that was used
            if is_interruption(error):
                raise
            self._mark = mark
            return False
        return True


def entered_run(within: Context | None = None) -> EnteredRun | None:
    """The innermost entry of a context (without one, the current)."""
    innermost = _innermost(within)
    while innermost is not None and within is None and innermost.astray and innermost.is_here():
        around, innermost.outside = innermost.outside, _NOTHING
        # There is no moment at which the leaving could do that; this is the first one after it.
        current = otel_context.get_current()
        otel_context.attach(otel_context.set_value(_CURRENT_RUN, _innermost(around), baggage.copy(around, current)))
        innermost = _innermost(None)
    return innermost


def attached_run(within: Context | None = None) -> AttachedRun | None:
    """The run that was attached last in a context (without one, the current), or ``None``."""
    found = entered_run(within)
    return None if found is None else found.run


def named_run(within: Context | None = None) -> RunIdentity | None:
    """Which run a context (without one, the current) belongs to: that attached in this process, else that of its baggage."""
    run = attached_run(within)
    return baggage.read(within) if run is None else RunIdentity(run.flow_key, run.run_id)


def with_run_of(taken: Context) -> Context:
    """The current context, with the run of ``taken`` in place of its own, where that one had a run."""
    current, entry = otel_context.get_current(), _innermost(taken)
    has_none = entry is None and baggage.read(taken) is None
    if has_none or (entry is not None and entry is _innermost(current)):
        return current
    return otel_context.set_value(_CURRENT_RUN, entry, baggage.copy(taken, current))


def _innermost(within: Context | None) -> EnteredRun | None:
    return cast("EnteredRun | None", otel_context.get_value(_CURRENT_RUN, within))


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
