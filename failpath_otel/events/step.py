"""StepEvent: one status signal of one step, the unit that both sides speak."""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import msgspec

Status = Literal["running", "success", "error", "skipped"]
"""What an event says of its step: it began, or how it ended."""

STATUSES: Final[frozenset[str]] = frozenset(get_args(Status))


class StepError(msgspec.Struct, frozen=True, gc=False):
    """Why a step failed.

    Attributes:
        name: The last part of the exception's type name, such as ``CardDeclined``.
        message: ``str(exception)``, bounded; empty where it has none.
        stack: The formatted traceback, only where ``capture_stack`` asks for it.
    """

    name: str
    message: str = ""
    stack: str | None = None


# Without cycles, so the garbage collector need not walk the queue of a busy service.
class StepEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One status signal of one step. Frozen; times are nanoseconds since the Unix epoch.

    Attributes:
        event_id: ``<trace id>-<span id>-<start|end>``: the identity by which duplicates are known.
        flow_key: The flow's slug.
        run_id: The application's own id for this execution of the flow.
        step_key: The step's key within the flow.
        status: ``running``, or the outcome: ``success``, ``error``, ``skipped``.
        timestamp: When it happened.
        started_at: On outcomes, when the attempt began, so that an outcome alone tells the whole attempt.
        metadata: Client, run and step metadata, merged; JSON types only.
        error: Set on ``error``.
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits; tells the attempts of a step apart.
        service: ``service.name`` of the OpenTelemetry resource.
        skip_reason: Set on ``skipped`` where a reason was given.
    """

    event_id: str
    flow_key: str
    run_id: str
    step_key: str
    status: Status
    timestamp: int
    started_at: int | None = None
    metadata: dict[str, Any] = {}
    error: StepError | None = None
    trace_id: str | None = None
    span_id: str | None = None
    service: str | None = None
    skip_reason: str | None = None

    @property
    def is_outcome(self) -> bool:
        """True for ``success``, ``error`` and ``skipped``."""
        return self.status != "running"

    @property
    def duration_ms(self) -> float | None:
        """Milliseconds from the attempt's start to its outcome; ``None`` on ``running`` or where the start is unknown."""
        if self.started_at is None or self.status == "running":
            return None
        return max(0, self.timestamp - self.started_at) // 1000 / 1000


def event_id(trace_id: str, span_id: str, status: str) -> str:
    """The identity of an event: the same for the same signal, whichever way it travels."""
    return f"{trace_id}-{span_id}-{'start' if status == 'running' else 'end'}"
