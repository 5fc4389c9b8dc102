"""ConsoleExporter: one readable line an event, for development."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO, Final

import msgspec

from failpath_otel.events.step import StepEvent
from failpath_otel.events.wire import format_time

_MARKS: Final = {"running": "▶", "success": "✔", "error": "✘", "skipped": "↷"}
_TIME_OF_DAY: Final = slice(11, 23)  # HH:MM:SS.mmm of an RFC 3339 time


class ConsoleExporter:
    """Writes one line an event: time, status, flow, run, step, duration, error, metadata.

    Args:
        stream: A text stream; without one, the standard error of the moment.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream

    def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
        """Writes the batch and flushes it."""
        stream = self._stream or sys.stderr
        text = "".join(f"{format_line(event)}\n" for event in batch)
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()

    def close(self) -> None:
        """Does nothing: the stream is its owner's to close."""


def format_line(event: StepEvent) -> str:
    """The event as one line; control characters in it are shown, not sent to the terminal."""
    parts = [
        format_time(event.timestamp)[_TIME_OF_DAY],
        f"{_MARKS[event.status]} {event.status:<7}",
        f"{event.flow_key}/{event.step_key}",
        f"run={event.run_id}",
    ]
    if event.status != "skipped" and (duration := event.duration_ms) is not None:
        parts.append(f"{duration:.1f}ms")
    if event.error is not None:
        parts.append(f"{event.error.name}: {event.error.message}")
    if event.skip_reason is not None:
        parts.append(f"({event.skip_reason})")
    if event.metadata:
        parts.append(msgspec.json.encode(event.metadata, enc_hook=repr).decode())
    line = _visible("  ".join(parts))
    if event.error is not None and event.error.stack:
        line += "\n" + "\n".join(_visible(f"    {row}") for row in event.error.stack.rstrip().split("\n"))
    return line


def _visible(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
