"""Run: one execution of a flow."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from types import FrameType, MappingProxyType, TracebackType
from typing import Any, Generic, TypeVar, cast, overload

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext

from failpath_otel import clock
from failpath_otel.events.text import as_text, clip, new_run_id
from failpath_otel.events.translate import RunIdentity
from failpath_otel.propagation import baggage, carrier
from failpath_otel.propagation.current import EnteredRun, attached_run, entered_run, frame_above
from failpath_otel.steps import known_clients
from failpath_otel.steps.attempt import Attempt, RunFacts
from failpath_otel.steps.execution import Execution
from failpath_otel.steps.following import follow
from failpath_otel.steps.recorder import Recorder
from failpath_otel.steps.step import Step

# What takes keys of fewer steps may be given a run that takes more: Run[str] is a Run[Literal["a"]].
K_contra = TypeVar("K_contra", bound=str, contravariant=True)
T = TypeVar("T")


class Run(Generic[K_contra]):
    """One execution of a flow. Creating it sends nothing; its steps do.

    Two runs with the same flow and run id are one run. Made by `FailpathClient.run`. ``with run:`` makes it the current run
    of this context, which ``@client.step(...)`` and `current_run` go by; other services learn of it through W3C baggage
    (``docs/several-services.md``).
    """

    __slots__ = ("_facts", "_open", "_origin", "_recorder")

    def __init__(
        self,
        recorder: Recorder,
        flow_key: object,
        run_id: object,
        metadata: Mapping[str, Any] | None,
        origin: SpanContext | None = None,
    ) -> None:
        clock.notice_time_machine()
        self._recorder = recorder
        self._origin = origin
        # Threads, tasks and generators may have entered the same run: each leaves its own block.
        self._open: dict[FrameType | None, list[EnteredRun]] = {}
        flow = recorder.identifier("flow key", flow_key)
        # Asked of the text, not of the value: comparing a foreign object may do anything.
        known = recorder.identifier("run id", run_id, empty="")
        self._facts = RunFacts(recorder, flow, known or new_run_id(), recorder.metadata(metadata) if recorder.enabled else {})
        recorder.check_key(flow)
        if recorder.enabled:
            recorder.tracing.tracer()  # a provider that came late is attached before the first foreign span of this run

    def __repr__(self) -> str:
        return f"Run(flow_key={self.flow_key!r}, run_id={self.run_id!r})"

    def __copy__(self) -> Run[K_contra]:
        return self

    def __deepcopy__(self, memo: object) -> Run[K_contra]:
        return self

    def __reduce__(self) -> tuple[Callable[..., Run[Any]], tuple[str, str, str, dict[str, str], str | None]]:
        # In another process it goes on there, below the span of this moment, as with `carrier` and `FailpathClient.resume`.
        return _resumed, (self._recorder.client_name, self.flow_key, self.run_id, self.carrier(), self._recorder.difference)

    @property
    def flow_key(self) -> str:
        """The flow's slug."""
        return self._facts.flow_key

    @property
    def run_id(self) -> str:
        """The id that tells this execution from others; generated where none was given."""
        return self._facts.run_id

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata of every event of this run: the client's and the run's, the latter wins."""
        return MappingProxyType(self._facts.metadata)

    @property
    def recorder(self) -> Recorder:
        """What the steps of one client share; internal."""
        return self._recorder

    @property
    def facts(self) -> RunFacts:
        """What every step of this run needs; internal."""
        return self._facts

    @overload
    def step(self, step_key: K_contra, fn: None = None, *, metadata: Mapping[str, Any] | None = None) -> Step: ...

    @overload
    def step(
        self, step_key: K_contra, fn: Callable[[], Coroutine[Any, Any, T]], *, metadata: Mapping[str, Any] | None = None
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def step(self, step_key: K_contra, fn: Callable[[], T], *, metadata: Mapping[str, Any] | None = None) -> T: ...

    def step(self, step_key: str, fn: Callable[[], Any] | None = None, *, metadata: Mapping[str, Any] | None = None) -> Any:
        """Runs ``fn`` as a step of this run, or, without it, gives a `Step` for ``with``, ``async with`` or ``@``.

        ``running`` is recorded before ``fn`` is called. Its value is passed through. Where that is a coroutine or a generator,
        so is what comes back, and the step ends with it, as ``error`` with the name ``CancelledError`` where it is dropped. A
        future or task ends the step when it is done. Any other object ends it at once, whether it can be awaited or not. An
        exception ends the step as ``error`` and leaves as the same object.

        Args:
            step_key: The step's key within the flow.
            fn: Called without arguments.
            metadata: Added to the client's and the run's; the step's wins. Taken at the call.

        Raises:
            UnknownKeyError: Only with ``flows="strict"``, before ``fn`` is called.
            DeliveryError: Only with ``delivery="await"`` and ``raise_on_send_error=True``, after ``fn`` ran.
        """
        __tracebackhide__ = True
        recorder = self._recorder
        if not recorder.enabled:
            return Step(self._itself, step_key, {}) if fn is None else fn()
        key = recorder.identifier("step key", step_key)
        if recorder.checks_keys:
            recorder.check_key(self._facts.flow_key, key)
        if fn is None:
            return Step(self._itself, key, metadata)
        execution = Execution(recorder, self._facts, key, {} if metadata is None else recorder.metadata(metadata))
        try:
            try:
                execution.start_call()
                return follow(execution, fn(), key)
            except BaseException as error:
                execution.leave(error)
                raise
        except BaseException as error:
            execution.leave(error)  # does something only where an exception from outside interrupted the one above
            raise

    def skip(self, step_key: K_contra, reason: str | None = None, *, metadata: Mapping[str, Any] | None = None) -> None:
        """Records that the step is skipped on purpose, which tells it from one that never happened.

        Raises:
            UnknownKeyError: Only with ``flows="strict"``.
            DeliveryError: Only with ``delivery="await"`` and ``raise_on_send_error=True``.
        """
        recorder = self._recorder
        if not recorder.enabled:
            return
        key = recorder.identifier("step key", step_key)
        recorder.check_key(self._facts.flow_key, key)
        rendered = recorder.metadata(metadata)
        text = None if reason is None else clip(as_text(reason))
        event = Attempt(recorder, self._facts, key, rendered).instant("skipped", clock.time_ns(), rendered, reason=text)
        recorder.record(event)

    def carrier(self) -> dict[str, str]:
        """This run and the current span as text, for `FailpathClient.resume` in a worker: put it into the job.

        The forms are those of W3C: ``traceparent``, ``tracestate`` and ``baggage``, so a worker in any language can read it.
        Neither metadata nor other baggage travels. That of a run which came from a carrier without one names none either.
        """
        return carrier.pack(None if self._recorder.is_silent else RunIdentity(self.flow_key, self.run_id))

    def __enter__(self) -> Run[K_contra]:
        return self._enter(frame_above(1))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        found: list[EnteredRun] = []
        try:
            self._exit(frame_above(1), found)
        except BaseException:
            self._exit(frame_above(1), found)  # an interruption, after which this goes on
            raise

    def __aenter__(self) -> Coroutine[Any, Any, Run[K_contra]]:
        return self._enter_async(frame_above(1))

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Coroutine[Any, Any, None]:
        return self._exit_async(frame_above(1))

    async def _enter_async(self, frame: FrameType) -> Run[K_contra]:
        return self._enter(frame)

    async def _exit_async(self, frame: FrameType) -> None:
        found: list[EnteredRun] = []
        try:
            self._exit(frame, found)
        except BaseException:
            self._exit(frame, found)
            raise

    def _enter(self, frame: FrameType) -> Run[K_contra]:
        entry = EnteredRun(self, frame)
        try:
            self._open.setdefault(frame, []).append(entry)
            entry.enter(self._within())
            return self
        except BaseException:
            self._leave(entry)
            raise

    def _exit(self, frame: FrameType, found: list[EnteredRun]) -> None:
        """Leaves the block of this frame; ``found`` is it, where this is called again."""
        if not found:
            entry = self._entry_of(frame)
            if entry is None:
                return
            found.append(entry)
        self._leave(found[0])

    def _leave(self, entry: EnteredRun) -> None:
        entry.leave()
        here = self._open.get(entry.frame, [])
        if entry in here:
            here.remove(entry)
        if not here:
            self._open.pop(entry.frame, None)
        entry.frame = None

    def _entry_of(self, frame: FrameType) -> EnteredRun | None:
        """The entry of the block at this frame, else the innermost one around: an ``ExitStack`` enters and leaves for others.

        Several may have one frame, such as an event loop's, which is what compiled code that enters them stands in.
        """
        here = self._open.get(frame, ())
        if len(here) == 1:
            return here[0]
        entry = entered_run()
        while entry is not None and not (entry.run is self and entry in (here or self._open.get(entry.frame, ()))):
            entry = entered_run(entry.outside)
        if entry is not None:
            return entry
        return here[-1] if here else next((entries[-1] for entries in reversed(tuple(self._open.values()))), None)

    def _within(self) -> Context:
        """The context of this moment, with the run in its baggage, below the span that a carrier brought."""
        within = otel_context.get_current()
        if not self._recorder.enabled:
            return within
        if self._origin is not None and trace.get_current_span(within).get_span_context().trace_id != self._origin.trace_id:
            within = trace.set_span_in_context(NonRecordingSpan(self._origin), within)
        if not self._recorder.propagates:
            return baggage.remove(within)  # an outer run's, which would be taken for this one's
        return baggage.write(RunIdentity(self.flow_key, self.run_id), within)

    def _itself(self) -> Run[K_contra]:
        return self


def _resumed(
    client_name: str, flow_key: str, run_id: str, carried: Mapping[str, str], difference: str | None = None
) -> Run[Any]:
    recorder: Recorder = known_clients.find(client_name).recorder.differing(difference)
    return Run(recorder, flow_key, run_id, None, carrier.unpack(carried)[1])


def current_run() -> Run[Any] | None:
    """The run of the innermost ``with run:`` of this context, or ``None``.

    A run that another service began is known to a client alone: `FailpathClient.current_run`.
    """
    return cast("Run[Any] | None", attached_run())
