"""JsonlExporter: one JSON object a line, in the wire's own form, to a file or stream."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from failpath_otel.errors import RejectedError
from failpath_otel.events.step import StepEvent
from failpath_otel.events.wire import encode_event
from failpath_otel.interruption import is_interruption


class JsonlExporter:
    """Appends each event as a line of JSON.

    Args:
        target: A path, which is opened for appending at the first event, or an open text stream. Without one, the
            standard output. Several processes may append to one path: each batch is a single write.
    """

    def __init__(self, target: str | os.PathLike[str] | IO[str] | None = None) -> None:
        self._path = Path(target) if isinstance(target, str | os.PathLike) else None
        self._stream = None if isinstance(target, str | os.PathLike) else target

    def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
        """Writes the batch and flushes it.

        Raises:
            OSError: The file cannot be written; the batch counts as rejected.
            RejectedError: Some events cannot be encoded; the others are written.
        """
        rejected: dict[str, str] = {}
        lines = b"".join(_encoded(batch, rejected))
        if self._path is not None:
            _append(self._path, lines)
        else:
            # The stream of this moment: test runners and daemons replace sys.stdout.
            _write(self._stream or sys.stdout, lines.decode())
        if rejected:
            raise RejectedError(rejected)

    def close(self) -> None:
        """Does nothing: a path is open only while a batch is written, a stream is its owner's to close."""


def _encoded(batch: Sequence[StepEvent], rejected: dict[str, str]) -> Iterator[bytes]:
    for event in batch:
        try:
            line = encode_event(event)
        except Exception as error:
            if is_interruption(error):
                raise
            rejected[event.event_id] = f"cannot be encoded: {error}"
            continue
        yield line + b"\n"


def _write(stream: IO[str], lines: str) -> None:
    try:
        stream.write(lines)
    except UnicodeEncodeError:
        # The stream's encoding lacks characters of ours, and JSON can say them in ASCII.
        stream.write("".join(f"{json.dumps(json.loads(line))}\n" for line in lines.split("\n") if line))
    stream.flush()


def _append(path: Path, lines: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        while lines:
            lines = lines[os.write(descriptor, lines) :]
    finally:
        os.close(descriptor)
