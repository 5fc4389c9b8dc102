"""Step: a named unit of work, as a block, as a decorator, or around a call."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from types import FrameType, TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar

from opentelemetry.trace import INVALID_SPAN, Span

from failpath_otel.events.metadata import Rendered, render
from failpath_otel.notices import warn_once
from failpath_otel.propagation.current import frame_above
from failpath_otel.steps.attempt import Attempt, RunFacts, open_attempts
from failpath_otel.steps.decorator import decorate
from failpath_otel.steps.execution import NOTHING, Execution
from failpath_otel.steps.recorder import Recorder

P = ParamSpec("P")
R = TypeVar("R")
_Entry = tuple[FrameType, Execution]
"""An open block: where it stands, and what it executes."""


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

    __slots__ = ("_ended", "_find_source", "_metadata", "_open", "_recorded", "_step_key")

    def __init__(self, find_source: Callable[[], StepSource | None], step_key: str, metadata: Mapping[str, Any] | None) -> None:
        self._find_source = find_source
        self._step_key = step_key
        self._metadata: Rendered = {} if metadata is None else render(metadata)
        # One Step may be entered by thousands of threads, tasks and generators, each of which leaves its own block.
        self._open: dict[FrameType, list[_Entry]] = {}
        self._recorded: dict[Attempt, _Entry] = {}
        self._ended = False

    def __repr__(self) -> str:
        return f"Step({self._step_key!r})"

    def __copy__(self) -> Step:
        return self

    def __deepcopy__(self, memo: object) -> Step:
        return self

    def __reduce__(self) -> tuple[type[Step], tuple[Any, str, Rendered]]:
        return Step, (self._find_source, self._step_key, self._metadata)  # one that is yet to begin

    @property
    def step_key(self) -> str:
        """The step's key within the flow."""
        return self._step_key

    @property
    def span(self) -> Span:
        """The OpenTelemetry span of the running step; an invalid, inert one before it begins and where nothing is recorded."""
        execution = self._innermost(frame_above(1))
        return INVALID_SPAN if execution is None else execution.span

    def set_metadata(self, **values: Any) -> None:
        """Adds metadata to the outcome and, unless ``metadata_on_spans`` is off, to the span. Values are taken now."""
        execution = self._innermost(frame_above(1))
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
        execution = self._innermost(frame_above(1))
        if execution is None:
            warn_once("detach", "step %r is not running, so it cannot be detached", self._step_key)
            return ""
        return execution.detach()

    def __enter__(self) -> Step:
        execution = self._begin()
        try:
            execution.start()
            self._enter((frame_above(1), execution))
            return self
        except BaseException as error:
            execution.leave(error)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        execution: Execution = NOTHING
        try:
            execution = self._leave(frame_above(1))
            execution.finish(error)
        except BaseException as raised:
            execution.leave(error or raised)
            raise

    def __aenter__(self) -> Coroutine[Any, Any, Step]:
        return self._enter_async(frame_above(1))

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Coroutine[Any, Any, None]:
        return self._exit_async(error, frame_above(1))

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Decorates ``fn``: each call is a step. Sync, async, generator and asynchronous generator functions."""
        return decorate(fn, self._begin, self._step_key)

    async def _enter_async(self, frame: FrameType) -> Step:
        execution = self._begin()
        try:
            await execution.start_async()
            self._enter((frame, execution))
            return self
        except BaseException as error:
            await execution.leave_async(error)
            raise

    async def _exit_async(self, error: BaseException | None, frame: FrameType) -> None:
        execution: Execution = NOTHING
        try:
            execution = self._leave(frame)
            await execution.finish_async(error)
        except BaseException as raised:
            await execution.leave_async(error or raised)
            raise

    def _enter(self, entry: _Entry) -> None:
        frame, execution = entry
        self._open.setdefault(frame, []).append(entry)
        if execution.attempt is not None:
            self._recorded[execution.attempt] = entry

    def _leave(self, frame: FrameType) -> Execution:
        entry = self._entry_of(frame)
        if entry is None:
            return NOTHING
        self._ended = True
        where, execution = entry
        if execution.attempt is not None:
            self._recorded.pop(execution.attempt, None)
        here = self._open.get(where, [])
        if entry in here:
            here.remove(entry)
        if not here:
            self._open.pop(where, None)
        return execution

    def _innermost(self, frame: FrameType) -> Execution | None:
        entry = self._entry_of(frame)
        return None if entry is None else entry[1]

    def _entry_of(self, frame: FrameType) -> _Entry | None:
        """Which of the open blocks is meant: that of this frame, else the innermost that the calling code runs within.

        Several may have one frame, such as an event loop's, which is what compiled code that enters them stands in.
        """
        here = self._open.get(frame, ())
        if len(here) == 1:
            return here[0]
        for attempt in open_attempts():
            entry = self._recorded.get(attempt)
            if entry is not None and (not here or entry in here):
                return entry
        # Not within any of them that is recorded, so in one that is not, or in a context that was entered without them.
        entries = here or [entry for there in tuple(self._open.values()) for entry in there]
        return next((entry for entry in reversed(entries) if entry[1] is NOTHING), entries[-1] if entries else None)

    def _begin(self) -> Execution:
        source = self._find_source()
        if source is None or not source.recorder.enabled:
            return NOTHING
        recorder = source.recorder
        return Execution(recorder, source.facts, self._step_key, self._metadata)


class ClientOfStep(Protocol):
    """What a step of no particular run needs of its client."""

    @property
    def recorder(self) -> Recorder:
        """What its steps share."""
        ...

    def current_run(self) -> StepSource | None:
        """The run of this context."""
        ...


class RunOfContext:
    """Finds the run that a step of `FailpathClient.step` belongs to. An object, so that such a step can be pickled."""

    def __init__(self, client: ClientOfStep, step_key: str) -> None:
        self._client = client
        self._step_key = step_key

    def __call__(self) -> StepSource | None:
        """The run of this moment; where there is none that is said once, and nothing is recorded."""
        run = self._client.current_run()
        if run is None:
            if self._client.recorder.enabled:
                _outside_a_run(self._step_key)
            return None
        run.recorder.check_key(run.facts.flow_key, self._step_key)
        return run


def _outside_a_run(step_key: str) -> None:
    """Says once that a step ran where there is no current run, so that nothing is recorded of it."""
    warn_once(
        f"no-run:{step_key}",
        "step %r ran outside of a run, so nothing is recorded of it; put the call under 'with client.run(...):'",
        step_key,
    )
