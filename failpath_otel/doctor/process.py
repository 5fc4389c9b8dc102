"""The process of its own in which the application is imported, and its end when it takes too long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec

from failpath_otel.doctor.facts import ProcessFacts
from failpath_otel.events.text import clip


def facts_of_process(app: str | None, timeout_seconds: float) -> ProcessFacts:
    """What is the case where the application, or without one only tracing, is set up. Never raises.

    What the application prints goes nowhere. It is ended, with the processes that it started, after ``timeout_seconds``.
    """
    with tempfile.TemporaryDirectory(prefix="failpath-otel-") as folder:
        path = Path(folder) / "facts.json"
        asking = str(timeout_seconds * 0.8)  # the rest is for starting and for writing down
        command = [sys.executable, "-m", "failpath_otel.doctor.inside", str(path), asking, *([app] if app else [])]
        said = Path(folder) / "stderr"
        with said.open("wb") as stderr:
            process = subprocess.Popen(  # noqa: S603 - this Python, with what the user named on its own command line
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True
            )
            try:
                code = process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                return ProcessFacts(failure=f"it was not done within {timeout_seconds:.0f} s")
            finally:
                _end(process)
        try:
            return msgspec.json.decode(path.read_bytes(), type=ProcessFacts)
        except (OSError, msgspec.DecodeError):
            last = said.read_text("utf-8", "replace").strip().rpartition("\n")[2]
            return ProcessFacts(failure=clip(f"its process ended with {code}: {last}", 1024))


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
