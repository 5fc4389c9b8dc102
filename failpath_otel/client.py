"""FailpathClient: wires runs and steps to tracing and delivery."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Literal, overload

from opentelemetry.trace import TracerProvider

from failpath_otel.config import Options, resolve
from failpath_otel.delivery import Delivery, DropReason, Sink
from failpath_otel.delivery.factory import open_sink
from failpath_otel.delivery.fallback import prefer
from failpath_otel.events.metadata import render
from failpath_otel.events.step import Status, StepError, StepEvent
from failpath_otel.exporters import EventExporter
from failpath_otel.flow_key import FlowKey, K
from failpath_otel.flows import Flows
from failpath_otel.notices import warn_once
from failpath_otel.propagation.carrier import unpack
from failpath_otel.propagation.completion_token import decode_token
from failpath_otel.propagation.current import named_run
from failpath_otel.rules.discovery import rules_in_use
from failpath_otel.rules.rule import SpanRule, SpanRules
from failpath_otel.steps import known_clients
from failpath_otel.steps.arguments import known_status, nanoseconds, step_error
from failpath_otel.steps.attempt import Attempt
from failpath_otel.steps.delivering import DeliveringClient
from failpath_otel.steps.known_flows import flows_in_use
from failpath_otel.steps.recorder import Recorder
from failpath_otel.steps.run import Run, current_run
from failpath_otel.steps.step import RunOfContext, Step
from failpath_otel.tracing import late_provider
from failpath_otel.tracing.attachment import Attachment, retire
from failpath_otel.tracing.processor import FailpathSpanProcessor
from failpath_otel.tracing.provider import Tracing
from failpath_otel.tracing.sampler import RecordingSampler
from failpath_otel.version import VERSION


class FailpathClient(DeliveringClient):
    """The way in: makes runs, and delivers what their steps report.

    One for a process, made once. It costs nothing until the first step: no thread, no connection. Also a context manager,
    which shuts it down at its end; at the interpreter's exit that happens by itself. Each option may come from the
    environment (``docs/configuration.md`` has the table); argument > environment > default.

    Args:
        project_key: The project's key. Without one nothing goes to a remote host; an endpoint on loopback needs none.
        endpoint: Base URL that takes the events.
        certificate: PEM file of the authorities to trust at an https endpoint, in place of all others.
        client_certificate: PEM file of a certificate of our own, for an endpoint that demands one; its key may be in it.
        client_key: PEM file of that certificate's key, without a passphrase.
        enabled: False: functions still run, no span is opened and nothing is sent.
        default_metadata: Metadata of every event; run and step metadata win over it. In the environment as
            ``key=value,key=value``.
        capture_stack: Send the traceback with errors.
        delivery: ``background`` sends from a thread; ``await`` sends each event before the call goes on.
        raise_on_send_error: Raise `DeliveryError` when sending fails: from ``flush()``, or with ``await`` after the step's
            function.
        send_timeout_millis: How long one request may take; 0: no limit.
        max_queue_size: How many events may wait or be in flight; beyond it events are dropped by rank and counted.
        on_error: Called with the exception of each failed attempt to send, from the worker's thread.
        on_drop: Called with each dropped event and the reason.
        mask: Called with each event before it leaves; returns the event that may leave. Spans are not masked.
        exporter: ``http``, ``otlp``, ``console``, ``jsonl`` (or ``jsonl:PATH``), ``memory``, ``none`` (spans only), or an
            exporter object.
        tracer_provider: The tracer provider to open spans with; without one, the global one of the moment.
        flows: Path of flows.json, to warn of unknown keys; without one it is looked for from the working directory up.
            ``strict`` (or ``strict:PATH``): unknown keys raise. False: none.
        metadata_on_spans: Put metadata on the spans too.
        propagate: Put flow and run id of the current run into W3C baggage, so that the services called go on with the run.
        rules: Which spans of others are steps: path of spans.json, or rules; without it ``.failpath/spans.json`` is looked for
            from the working directory up. False: none.
        record_unsampled: Have spans recorded, not exported, that the sampler drops and that could be steps; see
            `RecordingSampler`.

    Raises:
        ConfigError: An option or environment variable cannot be used.
    """

    def __init__(
        self,
        project_key: str | None = None,
        *,
        endpoint: str | None = None,
        certificate: str | os.PathLike[str] | None = None,
        client_certificate: str | os.PathLike[str] | None = None,
        client_key: str | os.PathLike[str] | None = None,
        enabled: bool | None = None,
        default_metadata: Mapping[str, Any] | None = None,
        capture_stack: bool | None = None,
        delivery: Literal["background", "await"] | None = None,
        raise_on_send_error: bool | None = None,
        send_timeout_millis: int | None = None,
        max_queue_size: int | None = None,
        on_error: Callable[[Exception], object] | None = None,
        on_drop: Callable[[StepEvent, DropReason], object] | None = None,
        mask: Callable[[StepEvent], StepEvent] | None = None,
        exporter: str | EventExporter | None = None,
        tracer_provider: TracerProvider | None = None,
        flows: str | os.PathLike[str] | Flows | Literal[False] | None = None,
        metadata_on_spans: bool | None = None,
        propagate: bool | None = None,
        rules: str | os.PathLike[str] | SpanRules | Sequence[SpanRule] | Literal[False] | None = None,
        record_unsampled: bool | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        options = resolve(given)
        known_flows, strict_keys = flows_in_use(options.flows)
        known_rules = rules_in_use(options.rules) if options.enabled else None
        sink = self._open_sink(options)
        processor = FailpathSpanProcessor.for_sink(sink, options, known_rules)
        sampled = partial(RecordingSampler, rules=known_rules) if options.record_unsampled else None
        self._attachment = Attachment(processor if options.enabled and sink is not None else None, sampled)
        self._recorder = Recorder(
            sink=sink,
            tracing=Tracing(options.tracer_provider, self._attachment, VERSION),
            enabled=options.enabled,
            waits=options.delivery == "await",
            raise_on_send_error=options.raise_on_send_error,
            send_timeout_millis=options.send_timeout_millis,
            capture_stack=options.capture_stack,
            metadata_on_spans=options.metadata_on_spans,
            default_metadata=render(options.default_metadata),
            flows=known_flows,
            strict_keys=strict_keys,
            propagates=options.propagate,
        )
        if options.enabled:
            self._recorder.tracing.tracer()
            if options.tracer_provider is None and sink is not None:
                # With rules, or spans that carry the attributes, nothing of ours may ever be called again.
                late_provider.await_provider(self._recorder.tracing)
        if self._made_by_service and sink is not None and self._recorder.tracing.is_global:
            prefer(sink)
        self._recorder.client_name = known_clients.remember(self)
        if isinstance(sink, Delivery):
            weakref.finalize(self._recorder, retire, sink, self._attachment).atexit = False

    _made_by_service = True

    def _open_sink(self, options: Options) -> Sink | None:
        return open_sink(options, f"failpath-otel/{VERSION}")

    # Recording

    @overload
    def run(
        self,
        flow_key: FlowKey[K],
        run_id: object = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        delivery: Literal["background", "await"] | None = None,
    ) -> Run[K]: ...

    @overload
    def run(
        self,
        flow_key: str,
        run_id: object = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        delivery: Literal["background", "await"] | None = None,
    ) -> Run[str]: ...

    def run(
        self,
        flow_key: object,
        run_id: object = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        delivery: Literal["background", "await"] | None = None,
    ) -> Run[Any]:
        """One execution of a flow. Sends nothing by itself.

        Args:
            flow_key: The flow's slug, or its `FlowKey`, with which type checkers know the run's step keys.
            run_id: The application's own id (request, job, webhook delivery); other types are taken as ``str(run_id)``. Without
                one, or with an empty one, an id is made that sorts by time and cannot be guessed.
            metadata: Added to the client's; the run's wins. Taken at the call.
            delivery: ``await`` or ``background`` for the steps of this run, in place of the client's: with ``await`` each is
                told before the code after it goes on, as is right below an engine that runs no step again that it has done.

        Raises:
            UnknownKeyError: Only with ``flows="strict"``.
        """
        return Run(self._recorder.delivering(delivery), flow_key, run_id, metadata)

    def current_run(self) -> Run[Any] | None:
        """The run of this context: that of the innermost ``with run:``, else the one that a calling service began, or ``None``.

        The latter comes in W3C baggage, which OpenTelemetry's instrumentation of the server makes current. What cannot be a
        run's name is ignored and counted (`Stats.baggage_refused`).
        """
        attached = current_run()
        if attached is not None or not self._recorder.enabled:
            return attached
        named = named_run()
        return None if named is None else Run(self._recorder, named.flow_key, named.run_id, None)

    def resume(self, carrier: Mapping[str, str]) -> Run[Any]:
        """The run of `Run.carrier`, to go on with in a worker; within ``with``, steps are in the carrier's trace too.

        ::

            with failpath.resume(job["failpath"]):
                ship(order)

        A carrier without a run is warned of once; what runs under it then runs unrecorded, for no flow can be guessed.
        """
        run, origin = unpack(carrier)
        if run is not None:
            return Run(self._recorder, run.flow_key, run.run_id, None, origin)
        if self._recorder.enabled:
            warn_once("carrier", "resume got a carrier that names no run; steps under it are not recorded")
        return Run(self._recorder.silent(), "unnamed", None, None)

    def complete(
        self,
        token: str,
        error: BaseException | StepError | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> bool:
        """Ends a step that `Step.detach` left open, here or in another process: ``success``, or ``error`` with ``error``.

        The outcome is the very event that the step's own end would have been, so a second call changes nothing: the first
        that arrives counts.

        Args:
            token: What `Step.detach` returned.
            error: Why the step failed.
            metadata: Added to what the step's start said.

        Returns:
            Whether something was recorded: not for a token that is none, which is warned of, and not where nothing is sent.

        Raises:
            DeliveryError: Only with ``delivery="await"`` and ``raise_on_send_error=True``.
        """
        recorder = self._recorder
        if not recorder.enabled or token == "":
            return False
        completion = decode_token(token)
        if completion is None:
            warn_once("token", "complete got a token that Step.detach did not make; nothing is recorded")
            return False
        run: Run[Any] = Run(recorder, completion.flow_key, completion.run_id, None)
        rendered = recorder.metadata(metadata)
        described = None if error is None else step_error(error, capture_stack=recorder.capture_stack)
        event = Attempt(recorder, run.facts, completion.step_key, rendered).complete(completion, rendered, described)
        recorder.record(event)
        return event is not None

    def step(self, step_key: str, *, metadata: Mapping[str, Any] | None = None) -> Step:
        """A step of whatever run is current when it begins: a decorator for functions of every kind, or a block.

        Outside of a run the function runs and nothing is recorded, which is warned of once.

        Raises:
            UnknownKeyError: Only with ``flows="strict"``: no flow has this step. Where another flow than the current run's
                has it, that is raised when the step would begin.
        """
        recorder = self._recorder

        key = recorder.identifier("step key", step_key)
        recorder.check_step_of_any_flow(key)
        return Step(RunOfContext(self, key), key, metadata)

    @overload
    def record_step(
        self,
        *,
        flow_key: FlowKey[K],
        run_id: object,
        step_key: K,
        status: Status,
        error: BaseException | StepError | None = None,
        metadata: Mapping[str, Any] | None = None,
        timestamp: int | datetime | None = None,
    ) -> None: ...

    @overload
    def record_step(
        self,
        *,
        flow_key: str,
        run_id: object,
        step_key: str,
        status: Status,
        error: BaseException | StepError | None = None,
        metadata: Mapping[str, Any] | None = None,
        timestamp: int | datetime | None = None,
    ) -> None: ...

    def record_step(
        self,
        *,
        flow_key: object,
        run_id: object,
        step_key: str,
        status: Status,
        error: BaseException | StepError | None = None,
        metadata: Mapping[str, Any] | None = None,
        timestamp: int | datetime | None = None,
    ) -> None:
        """Records one status of a step that ran elsewhere: in another service, a callback, out of band. One event, one span.

        Args:
            flow_key: The flow's slug, or its `FlowKey`.
            run_id: The run's id; an empty one is generated.
            step_key: The step's key within the flow.
            status: ``running``, ``success``, ``error`` or ``skipped``; an outcome may come without ``running`` before it.
            error: Why it failed; counts only with ``error``.
            metadata: Added to the client's.
            timestamp: When it happened: nanoseconds since the Unix epoch, or a datetime with a time zone. Now, without one.

        Raises:
            UnknownKeyError: Only with ``flows="strict"``.
            DeliveryError: Only with ``delivery="await"`` and ``raise_on_send_error=True``.
        """
        recorder = self._recorder
        if not recorder.enabled:
            return
        known = known_status(status)
        if known is None:
            return
        run: Run[Any] = Run(recorder, flow_key, run_id, None)
        key = recorder.identifier("step key", step_key)
        recorder.check_key(run.flow_key, key)
        rendered = recorder.metadata(metadata)
        described = step_error(error, capture_stack=recorder.capture_stack) if known == "error" else None
        event = Attempt(recorder, run.facts, key, rendered).instant(known, nanoseconds(timestamp), rendered, described)
        recorder.record(event)


known_clients.make_stand_ins_by(partial(FailpathClient, enabled=False, flows=False, rules=False))
