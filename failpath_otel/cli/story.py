"""What a run came to, step by step, as the demo did it and as the server's API knows it. Pure; compared exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

_Part = str | bool | tuple[str, ...] | None


@dataclass(frozen=True)
class StepStory:
    """One step: its status, the status of each attempt, and the reason where it has one.

    Attributes:
        status: ``success``, ``error``, ``running``, ``skipped`` or ``missing``.
        attempts: The status of each attempt, the first one first.
        error: The name of the error of the last attempt.
        skip_reason: Why it was skipped.
        missing_reason: Why it is missing.
        stuck: Whether it has been running for too long.
    """

    status: str
    attempts: tuple[str, ...] = ()
    error: str | None = None
    skip_reason: str | None = None
    missing_reason: str | None = None
    stuck: bool = False


@dataclass(frozen=True)
class RunStory:
    """One run with its steps by key, in the order of the flow."""

    flow_key: str
    run_id: str
    status: str
    steps: Mapping[str, StepStory] = field(hash=False)
    stuck: bool = False


def success() -> StepStory:
    """A step that went well at once."""
    return StepStory("success", ("success",))


def known_story(run: Mapping[str, Any]) -> RunStory:
    """The story that ``GET /api/run`` tells."""
    steps = {
        step["stepKey"]: StepStory(
            status=step["status"],
            attempts=tuple(attempt["status"] for attempt in step["attempts"]),
            error=step["error"]["name"] if step["error"] else None,
            skip_reason=step["skipReason"],
            missing_reason=step["missingReason"],
            stuck=step["stuck"],
        )
        for step in run["steps"]
    }
    return RunStory(run["flowKey"], run["runId"], run["status"], steps, run["stuck"])


def differences(done: RunStory, known: RunStory | None) -> list[str]:
    """What the server knows otherwise than it was done, one line each; empty where both agree."""
    name = f"{done.flow_key} {done.run_id}"
    if known is None:
        return [f"{name}: done, but the server does not know this run"]
    lines: list[str] = []
    for what in ("status", "stuck"):
        lines += _unequal(f"{name}: {what}", getattr(done, what), getattr(known, what))
    lines += _unequal(f"{name}: order of steps", tuple(done.steps), tuple(known.steps))
    for key, step in done.steps.items():
        other = known.steps.get(key)
        if other is not None:
            for part in fields(StepStory):
                lines += _unequal(f"{name}: {key}: {part.name}", getattr(step, part.name), getattr(other, part.name))
    return lines


def _unequal(what: str, done: _Part, known: _Part) -> list[str]:
    return [] if done == known else [f"{what}: done {_shown(done)}, the server knows {_shown(known)}"]


def _shown(value: _Part) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return str(value).lower() if value is None or isinstance(value, bool) else value
