"""Step: a named unit of work, as a block, as a decorator, or around a call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar

from opentelemetry.trace import INVALID_SPAN, Span

from failpath_otel.events.metadata import Rendered, render
from failpath_otel.notices import warn_once
from failpath_otel.steps.attempt import RunFacts
from failpath_otel.steps.decorator import decorate
from failpath_otel.steps.execution import NOTHING, Execution
from failpath_otel.steps.recorder import Recorder

P = ParamSpec("P")
R = TypeVar("R")


class StepSource(Protocol):
    """What a step needs of its run."""

    @property
    def recorder(self) -> Recorder:
        """What the steps of one client share."""
        ...

    @property
    def facts(self) -> RunFacts:
        """What every step of the run needs."""
        ...


class Step:
    """A step that is yet to begin: a sync and async context manager, and a decorator for functions of every kind.

    As a block it begins at the ``with`` and ends with the block: ``success``, or ``error`` where a `BaseException` leaves it,
    which goes on unchanged. As a decorator it begins and ends with each call, for generators with each iteration.
    A block may be entered again after it ended, which is another attempt.
    """

    __slots__ = ("_ended", "_find_source", "_metadata", "_open", "_step_key")

    def __init__(self, find_source: Callable[[], StepSource | None], step_key: str, metadata: Mapping[str, Any] | None) -> None:
        self._find_source = find_source
        self._step_key = step_key
        self._metadata: Rendered = {} if metadata is None else render(metadata)
        # One Step may be entered by several threads and tasks, each of which leaves its own block.
        self._open: list[tuple[object, Execution]] = []
        self._ended = False

    def __repr__(self) -> str:
        return f"Step({self._step_key!r})"

    @property
    def step_key(self) -> str:
        """The step's key within the flow."""
        return self._step_key

    @property
    def span(self) -> Span:
        """The OpenTelemetry span of the running step; an invalid, inert one before it begins and where nothing is recorded."""
        execution = self._innermost()
        return INVALID_SPAN if execution is None else execution.span

    def set_metadata(self, **values: Any) -> None:
        """Adds metadata to the outcome and, unless ``metadata_on_spans`` is off, to the span. Values are taken now."""
        execution = self._innermost()
        if execution is not None:
            execution.set_metadata(values)
            return
        if self._ended:
            warn_once("late-metadata", "set_metadata on step %r came after its end: kept for a next attempt", self._step_key)
        self._metadata = {**self._metadata, **render(values)}

    def detach(self) -> str:
        """Lets the step outlive its block, to be ended by `FailpathClient.complete` with the token that this returns.

        Any process may do that, at any time: a worker, a webhook, a person's approval. Until then the step is ``running``.
        The span ends with the block. An exception that leaves the block still ends the step as ``error``.

        Returns:
            Text of letters, digits and ``.-_``; empty where nothing is recorded. It is not signed: who has it may end
            this step. It names flow, run and step.
        """
        execution = self._innermost()
        if execution is None:
            warn_once("detach", "step %r is not running, so it cannot be detached", self._step_key)
            return ""
        return execution.detach()

    def __enter__(self) -> Step:
        execution = self._begin()
        execution.start()
        self._open.append((_whose(), execution))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        execution = self._innermost(leave=True)
        if execution is not None:
            execution.finish(error)

    async def __aenter__(self) -> Step:
        execution = self._begin()
        await execution.start_async()
        self._open.append((_whose(), execution))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        execution = self._innermost(leave=True)
        if execution is not None:
            await execution.finish_async(error)

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Decorates ``fn``: each call is a step. Sync, async, generator and asynchronous generator functions."""
        return decorate(fn, self._begin)

    def _innermost(self, *, leave: bool = False) -> Execution | None:
        if not self._open:
            return None
        whose = _whose() if len(self._open) > 1 else None
        found = next((entry for entry in reversed(self._open) if entry[0] == whose), self._open[-1])
        if leave:
            self._open.remove(found)
            self._ended = True
        return found[1]

    def _begin(self) -> Execution:
        source = self._find_source()
        if source is None or not source.recorder.enabled:
            return NOTHING
        recorder = source.recorder
        return Execution(recorder, source.facts, self._step_key, self._metadata)


def _whose() -> object:
    """Whose block this is: the thread's, or the asyncio task's."""
    # Outside of an event loop current_task() raises, which costs more than to ask first.
    return threading.get_ident() if asyncio._get_running_loop() is None else asyncio.current_task()  # noqa: SLF001


def outside_a_run(step_key: str) -> None:
    """Says once that a step ran where there is no current run, so that nothing is recorded of it."""
    warn_once(
        f"no-run:{step_key}",
        "step %r ran outside of a run, so nothing is recorded of it; put the call under 'with client.run(...):'",
        step_key,
    )
