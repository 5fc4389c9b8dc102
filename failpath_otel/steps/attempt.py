"""Attempt: one execution of a step. Opens and ends its span, makes its two events, and never raises.

The step reports itself, whether or not its span is recorded: sampling, a missing or replaced provider and a disabled SDK
change what a tracing backend sees, and nothing of what Failpath sees. A span processor recognises such spans by their
instrumentation scope and leaves them alone.
"""

from __future__ import annotations

import asyncio
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from contextvars import Token
from typing import Any, Final, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, Span, SpanContext, Status, StatusCode, TraceFlags, propagation

from failpath_otel import clock
from failpath_otel.delivery import process
from failpath_otel.events import semconv
from failpath_otel.events.metadata import MAX_EVENT_BYTES, Rendered, as_attributes, fit
from failpath_otel.events.step import Status as StepStatus
from failpath_otel.events.step import StepError, StepEvent
from failpath_otel.events.text import MAX_ID_CHARS, as_text, clip, clip_middle
from failpath_otel.interruption import is_interruption
from failpath_otel.notices import warn_once
from failpath_otel.propagation.completion_token import CompletionToken, encode_token
from failpath_otel.propagation.current import detach, with_run_of
from failpath_otel.steps.recorder import Recorder

# How far an attempt is. Numbers, for they are looked at in every step.
_NEW: Final = 0
_OPEN: Final = 1
_ENDING: Final = 2
_DONE: Final = 3

# The key has no public name. Where it is gone, the public way is taken.
_SPAN_KEY: Final[str | None] = getattr(propagation, "_SPAN_KEY", None)
# Whether an interruption may come between a `with` statement's lock and its block, and leave the lock held. OpenTelemetry's
# spans have such locks: one whose call was interrupted is not touched again, for that could wait for ever.
_LOCKS_MAY_STAY_HELD: Final = sys.version_info >= (3, 14)
_NO_CONTEXT: Final = Context()
_INNERMOST: Final = otel_context.create_key("failpath-innermost-attempt")
_ERROR_BUDGET = MAX_EVENT_BYTES // 4
handed_over: Final[set[Attempt]] = set()  # those that end with a coroutine or future, which the caller has
# Not the generator that an application may seed: ids that come again would make one event of two.
_random = random.SystemRandom()


class RunFacts:
    """What every step of a run needs, prepared once."""

    __slots__ = ("attributes", "flow_key", "identity", "metadata", "run_id")

    def __init__(self, recorder: Recorder, flow_key: str, run_id: str, metadata: Rendered) -> None:
        self.flow_key = flow_key
        self.run_id = run_id
        self.metadata = {**recorder.default_metadata, **metadata} if metadata else recorder.default_metadata
        self.identity: dict[str, Any] = {semconv.FLOW_SLUG: flow_key, semconv.RUN_ID: run_id}
        self.attributes: dict[str, Any] = as_attributes(self.metadata) if recorder.metadata_on_spans else {}


class Attempt:
    """One execution of a step, from `start` to the first of the ends; later ends do nothing.

    Attributes:
        span: Its span; an inert one before it begins.
        guard: What is to be dropped with its end.
        called_in: The context whose run the body is to be in, where that is not the one it begins in.
    """

    __slots__ = (
        "_around", "_before", "_context", "_detached", "_ended_at", "_metadata", "_outcome", "_phase", "_pid", "_recorder",
        "_run", "_service", "_span_id", "_started_at", "_step_key", "_token", "_trace_id", "called_in", "guard", "span",
    )  # fmt: skip

    def __init__(self, recorder: Recorder, run: RunFacts, step_key: str, metadata: Rendered) -> None:
        self._recorder = recorder
        self._run = run
        self._step_key = step_key
        self._metadata = {**run.metadata, **metadata} if metadata else run.metadata
        self._token: Token[Context] | None = None
        self._phase = _NEW
        self._around: Attempt | None = None
        self._context = self._before = _NO_CONTEXT
        self._detached = False
        self._outcome: StepEvent | None = None
        self.guard: object = None
        self.called_in: Context | None = None
        self.span: Span = INVALID_SPAN

    # Beginning

    def start(self, metadata: Rendered) -> StepEvent | None:
        """Opens the span, makes it current, and returns the ``running`` event."""
        try:
            self._pid = process.pid
            self._open(metadata, {}, clock.time_ns())
            self._around = next(open_attempts(self._before), None) if _INNERMOST in self._before else None
            self._phase = _OPEN
            self._token = otel_context.attach(self._context)
            return self._event("running", self._started_at)
        except Exception as error:
            if is_interruption(error):
                raise
            self._phase = _DONE
            warn_once("start", "step %r could not be recorded", self._step_key, exc_info=True)
            return None

    def instant(
        self, status: StepStatus, timestamp: int, metadata: Rendered, error: StepError | None = None, reason: str | None = None
    ) -> StepEvent | None:
        """Records a step that is known all at once, as a span without length; returns its one event."""
        try:
            attributes: dict[str, Any] = {semconv.STEP_STATUS: status}
            if reason is not None:
                attributes[semconv.SKIP_REASON] = reason
            self._open(metadata, attributes, timestamp)
            if error is not None:
                self._mark_failed(error.name, error, error.stack, timestamp)
            self._guarded(self.span.end, timestamp)
            self._context = _NO_CONTEXT
            return self._event(status, timestamp, error, reason)
        except Exception as failure:
            if is_interruption(failure):
                raise
            warn_once("instant", "step %r could not be recorded", self._step_key, exc_info=True)
            return None

    def complete(self, completion: CompletionToken, metadata: Rendered, error: StepError | None) -> StepEvent | None:
        """The outcome of a step that another process began and detached; its event is the one that process would have given.

        The outcome also needs a span, for those who take steps from spans: one without length, below the step's own, with
        the event's id on it.
        """
        try:
            status: StepStatus = "success" if error is None else "error"
            ended_at = max(clock.time_ns(), completion.started_at)
            done = f"{completion.trace_id}-{completion.span_id}-end"
            marks = {semconv.STEP_STATUS: status, semconv.EVENT_ID: done, semconv.STARTED_AT: completion.started_at}
            began = SpanContext(int(completion.trace_id, 16), int(completion.span_id, 16), True, TraceFlags(TraceFlags.SAMPLED))
            token = otel_context.attach(trace.set_span_in_context(NonRecordingSpan(began)))
            try:
                self._open(metadata, marks, ended_at)
            finally:
                detach(token)
            if error is not None:
                self._mark_failed(error.name, error, error.stack, ended_at)
            self._guarded(self.span.end, ended_at)
            self._context = _NO_CONTEXT
            self._trace_id, self._span_id, self._started_at = completion.trace_id, completion.span_id, completion.started_at
            return self._event(status, ended_at, error)
        except Exception as failure:
            if is_interruption(failure):
                raise
            warn_once("complete", "the end of step %r could not be recorded", self._step_key, exc_info=True)
            return None

    def _open(self, metadata: Rendered, extra: dict[str, Any], started_at: int) -> None:
        recorder = self._recorder
        run = self._run
        # Where a span has too many attributes the SDK drops the first ones: who this is comes last.
        own = as_attributes(metadata) if metadata and recorder.metadata_on_spans else {}
        attributes = {**run.attributes, **own, **run.identity, semconv.STEP_KEY: self._step_key, **extra}
        self._before = otel_context.get_current()
        current = self._context = self._before if self.called_in is None else with_run_of(self.called_in)
        try:
            self.span = recorder.tracing.tracer().start_span(
                f"{run.flow_key}/{self._step_key}", context=current, attributes=attributes, start_time=started_at
            )
        except Exception as error:
            if is_interruption(error):
                raise
            # A sampler or another processor raised; the step goes on without a span, its children below the caller's.
            warn_once("start_span", "the span of step %r could not be opened", self._step_key, exc_info=True)
        span_context = self.span.get_span_context()
        trace_id, span_id = span_context.trace_id, span_context.span_id
        # Older no-op tracers give an invalid span, below which the caller's trace would be lost.
        self._context = _within(current, self.span if span_id else None, self)
        if not (trace_id and span_id and self.span.is_recording()):
            parent = trace.get_current_span(current).get_span_context()
            trace_id = trace_id or parent.trace_id or _random.getrandbits(128)
            if not span_id or span_id == parent.span_id:
                # Without an SDK the "new" span carries its parent's ids: two steps below it must still be two.
                span_id = _random.getrandbits(64)
        self._trace_id = f"{trace_id:032x}"
        self._span_id = f"{span_id:016x}"
        self._started_at = started_at
        self._service = recorder.tracing.service(self.span)

    # The context of the body

    def resume(self) -> None:
        """Makes the step's context current, as it was left at the last `suspend`."""
        if self._phase == _OPEN:
            self._token = otel_context.attach(self._context)

    def suspend(self, *, keep: bool = False) -> None:
        """Makes the caller's context current again; ``keep`` remembers what the body attached, for the next `resume`."""
        token, self._token = self._token, None
        if token is not None:
            if keep:
                self._context = otel_context.get_current()
            detach(token)

    # Ending

    def set_metadata(self, values: Rendered) -> None:
        """Adds metadata to the outcome and to the span."""
        self._metadata = {**self._metadata, **values}
        if self._phase == _OPEN and self._recorder.metadata_on_spans:
            self._guarded(self.span.set_attributes, as_attributes(values))

    def detach(self) -> str:
        """A token with which any process ends the step; this one then ends it only where an exception leaves the body."""
        if self._phase != _OPEN:
            return ""
        self._detached = True
        run = self._run
        return encode_token(
            CompletionToken(run.flow_key, run.run_id, self._step_key, self._trace_id, self._span_id, self._started_at)
        )

    @property
    def around(self) -> Attempt | None:
        """The innermost attempt that was open around this one when it began."""
        return self._around

    @property
    def is_new(self) -> bool:
        """Whether the attempt has not begun."""
        return self._phase == _NEW

    @property
    def is_open(self) -> bool:
        """Whether the attempt has begun and its end has not."""
        return self._phase == _OPEN

    @property
    def is_ending(self) -> bool:
        """Whether `end` was interrupted, or what it returned is not told yet."""
        return self._phase == _ENDING

    def end(self, exception: BaseException | None) -> StepEvent | None:
        """Ends the step, as ``error`` where there is an exception, else as ``success``; returns that event.

        `told` says that the event is on its way. Until then, after an interruption, this goes on where it was; the first
        outcome counts. A detached step without an exception goes on: only its span ends, which says that it reported the
        start alone.
        """
        interrupted = self._phase == _ENDING
        if self._phase == _OPEN:
            self._ended_at = max(clock.time_ns(), self._started_at)
            self._phase = _ENDING
        self.suspend()
        if self._phase != _ENDING:
            return None
        if process.pid != self._pid:
            self._phase = _DONE
            return None  # a forked child unwinds its parent's step, which the parent will end
        if self._outcome is None:
            try:
                self._outcome = self._end(exception, span_may_have_ended=interrupted)
            except Exception as failure:
                if is_interruption(failure):
                    raise
                warn_once("end", "the end of step %r could not be recorded", self._step_key, exc_info=True)
        return self._outcome

    def restore(self) -> None:
        """Makes the caller's context current again where an interruption came between that and the record of it."""
        if self._phase != _NEW and self._token is None and otel_context.get_current() is self._context:
            otel_context.attach(self._before)

    def told(self) -> None:
        """What `end` returned is recorded; nothing is left to do."""
        self._phase = _DONE
        self._outcome = self.guard = self._around = None
        handed_over.discard(self)
        # Contexts outlive a step, in the tasks that began within it: what it held is not to grow into a chain.
        self._context = self._before = _NO_CONTEXT
        self.called_in = None

    def dropped(self, _: object) -> None:
        """The callback of a weak reference to what should have ended this."""
        if self.is_open:
            error = asyncio.CancelledError("what the step began was dropped before its end")
            if otel_context.get_current() is not self._context:
                self._token = None  # by now the context is another's
            self._recorder.emit(self.end(error), wait=False)
            self.told()

    def _end(self, exception: BaseException | None, *, span_may_have_ended: bool) -> StepEvent | None:
        span_is_open = not span_may_have_ended or self.span.is_recording()
        if exception is None:
            error = None
            if span_is_open:
                self._guarded(self.span.set_attribute, semconv.STEP_STATUS, "running" if self._detached else "success")
        else:
            error = self._describe(exception, span_is_open=span_is_open)
        if span_is_open:
            self._guarded(self.span.end, self._ended_at)
        if error is None and self._detached:
            return None
        return self._event("success" if error is None else "error", self._ended_at, error)

    def _describe(self, exception: BaseException, *, span_is_open: bool) -> StepError:
        wanted = self._recorder.capture_stack or (span_is_open and self.span.is_recording())
        stack = stack_of(exception) if wanted else None
        kind = type(exception)
        shown = stack if self._recorder.capture_stack else None
        error = StepError(name=clip(kind.__name__, MAX_ID_CHARS), message=clip(as_text(exception)), stack=shown)
        if span_is_open:
            self._guarded(self.span.set_attribute, semconv.STEP_STATUS, "error")
            qualified = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
            self._mark_failed(clip(qualified, MAX_ID_CHARS), error, stack, self._ended_at)
        return error

    def _mark_failed(self, kind: str, error: StepError, stack: str | None, at: int) -> None:
        # Not span.record_exception(): that raises where str(exception) does, and lets lone surrogates through, over which
        # the OTLP exporter loses its whole batch.
        attributes = {semconv.EXCEPTION_TYPE: kind, semconv.EXCEPTION_MESSAGE: error.message}
        if stack is not None:
            attributes[semconv.EXCEPTION_STACKTRACE] = stack
        self._guarded(self.span.add_event, semconv.EXCEPTION_EVENT, attributes, at)
        self._guarded(self.span.set_attribute, semconv.ERROR_TYPE, kind)
        self._guarded(self.span.set_status, Status(StatusCode.ERROR, f"{error.name}: {error.message}"))

    def _guarded(self, method: Callable[..., object], *args: object) -> None:
        """Calls a method of the span: processors of others may raise in it."""
        try:
            method(*args)
        except BaseException as error:
            if isinstance(error, Exception) and not is_interruption(error):
                warn_once("span", "the span of step %r raised", self._step_key, exc_info=True)
                return
            if _LOCKS_MAY_STAY_HELD:
                self.span = NonRecordingSpan(self.span.get_span_context())
            raise

    def _event(
        self, status: StepStatus, timestamp: int, error: StepError | None = None, reason: str | None = None
    ) -> StepEvent | None:
        if self._recorder.sink is None:
            return None
        running = status == "running"
        metadata = self._metadata
        if metadata:
            budget = MAX_EVENT_BYTES - _ERROR_BUDGET
            metadata = fit(metadata, budget if error is None else budget - 2 * _ERROR_BUDGET)
        return StepEvent(
            event_id=f"{self._trace_id}-{self._span_id}-{'start' if running else 'end'}",
            flow_key=self._run.flow_key,
            run_id=self._run.run_id,
            step_key=self._step_key,
            status=status,
            timestamp=timestamp,
            started_at=None if running else self._started_at,
            metadata=metadata.copy(),  # the run's own is shared by all its steps
            error=error,
            trace_id=self._trace_id,
            span_id=self._span_id,
            service=self._service,
            skip_reason=reason,
        )


def _within(around: Context, span: Span | None, attempt: Attempt) -> Context:
    # In one copy, where OpenTelemetry's set_value makes two for each value.
    values: dict[str, object] = {**around, _INNERMOST: attempt}
    if span is None:
        return Context(values)
    if _SPAN_KEY is None:
        return trace.set_span_in_context(span, Context(values))
    values[_SPAN_KEY] = span
    return Context(values)


def open_attempts(within: Context | None = None) -> Iterator[Attempt]:
    """The attempts that a context (without one, the current) is within, as far as they are open; the innermost first."""
    attempt = cast("Attempt | None", otel_context.get_value(_INNERMOST, within))
    while attempt is not None:
        if attempt.is_open:
            yield attempt
        attempt = attempt.around


def stack_of(exception: BaseException) -> str:
    """The formatted traceback, bounded; both its ends are kept."""
    try:
        return clip_middle("".join(traceback.format_exception(type(exception), exception, exception.__traceback__)))
    except Exception as failure:
        if is_interruption(failure):
            raise
        return f"[the traceback cannot be formatted: {type(failure).__name__}]"
