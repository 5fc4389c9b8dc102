"""A child process of the demo: started on a lifeline, read by its lines, ended by its id."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

_STOP_SECONDS: Final = 6.0
_POLL_SECONDS: Final = 0.02


class ChildError(Exception):
    """A child ended or stayed silent where it should have spoken; the message holds what it wrote last."""


class Child:
    """``python -m module arguments`` with a pipe from this process, by whose end it knows that we are gone.

    It runs in a session of its own, so that Ctrl-C reaches this process alone, which then ends its children in order.

    Args:
        name: What it is called in messages.
        module: The module to run.
        arguments: Its command line.
        environ: Its whole environment.
        folder: Where it runs, and where its output is kept.
    """

    def __init__(self, name: str, module: str, arguments: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        self._name = name
        self._output = folder / f"{name}.out"
        self._errors = folder / f"{name}.err"
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own module
                [sys.executable, "-m", module, *arguments],
                env=dict(environ),
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def line(self, prefix: str, timeout_seconds: float) -> str:
        """Waits for a line that begins with ``prefix``, and gives the rest of it.

        Raises:
            ChildError: The child ended first, or did not write it in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            ended = self._process.poll() is not None
            for line in self._output.read_text(errors="replace").splitlines(keepends=True):
                if line.startswith(prefix) and line.endswith("\n"):
                    return line[len(prefix) :].strip()
            if ended:
                raise ChildError(f"{self._name} ended with code {self._process.returncode}:\n{self._tail()}")
            if time.monotonic() > deadline:
                raise ChildError(f"{self._name} did not say {prefix!r} within {timeout_seconds:g} s:\n{self._tail()}")
            time.sleep(_POLL_SECONDS)

    def kill(self) -> None:
        """Ends it at once, without any chance to tidy up."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ends it: asks, waits, then forces."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            if self._process.stdin is not None:
                self._process.stdin.close()

    def _tail(self) -> str:
        written = self._output.read_text(errors="replace") + self._errors.read_text(errors="replace")
        return "\n".join(written.splitlines()[-20:]) or "(it wrote nothing)"
