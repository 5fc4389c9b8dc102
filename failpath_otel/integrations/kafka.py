"""Kafka: a message goes on with the run of whoever produced it.

For aiokafka, confluent-kafka and kafka-python, with and without OpenTelemetry's instrumentations of them. A consumer hands
messages over one by one and nobody learns when one is done, so no instrumentation makes a message's context current for as
long as it is handled; `consumed` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Final, cast

from opentelemetry import trace

from failpath_otel.client import FailpathClient
from failpath_otel.integrations.jobs import HEADER, Flow, JobRuns
from failpath_otel.interruption import is_interruption
from failpath_otel.notices import warn_once
from failpath_otel.propagation.carrier import unpack
from failpath_otel.steps.run import Run
from failpath_otel.steps.step import Step

_W3C: Final = ("traceparent", "tracestate", "baggage")
_MAX_BYTES: Final = 65_536

Headers = Mapping[str, Any] | Iterable[tuple[str, Any]]


def headers_with_run(client: FailpathClient, headers: Headers | None = None) -> list[tuple[str, Any]]:
    """The headers of a message that is produced within a run: those given, and the current run.

    ::

        producer.produce("orders", body, headers=headers_with_run(failpath))  # confluent-kafka
        await producer.send_and_wait("orders", body, headers=headers_with_run(failpath, [("kind", b"order")]))  # aiokafka

    The run is in one header, ``failpath``, which holds `Run.carrier` as JSON: in those of W3C a second value would stand beside
    that of the producer's instrumentation. Where the producer is instrumented and ``propagate`` is on, the run travels
    without this. Outside of a run the headers stay as they are. Never raises.
    """
    given = list(_pairs(headers))
    carrier = JobRuns[Any](client, None, None).carrier()
    if carrier is None:
        return given
    return [*(pair for pair in given if pair[0] != HEADER), (HEADER, json.dumps(carrier).encode())]


def consumed(
    client: FailpathClient,
    message: Any,
    *,
    flow: Flow | None = None,
    run_id: object = None,
    step_key: str | None = None,
) -> _Handling:
    """Makes the run of a message current while it is handled: ``with`` or ``async with``. Exceptions pass unchanged.

    ::

        async for message in consumer:  # aiokafka
            async with consumed(failpath, message) as run:
                run.step("reserve-stock", lambda: reserve(message.value))

    The run is the one that `headers_with_run` or the producer's instrumentation put into the headers, else the current one,
    else one of ``flow``. A message without any is warned of once, and what is handled then runs unrecorded.
    Steps, and other spans within, are in the trace of the producer; where the consumer's instrumentation has made a
    span of this message current (that of confluent-kafka does), they stay below that.

    Args:
        client: The client whose run this is.
        message: A message of aiokafka, confluent-kafka or kafka-python.
        flow: The flow of a run that begins with the message, where nobody's run came with it.
        run_id: That run's id. Without one it is made of topic, partition and offset, so that a message that is
            delivered again is of the same run.
        step_key: The step that the handling as a whole is. A message that is handled again is a further attempt.
    """
    run = _run_of(client, message, flow, run_id)
    return _Handling(run, run.step(step_key) if step_key else None)


class _Handling:
    """A message while it is handled."""

    def __init__(self, run: Run[Any], step: Step | None) -> None:
        self._run = run
        self._step = step

    def __enter__(self) -> Run[Any]:
        self._run.__enter__()
        if self._step is not None:
            try:
                self._step.__enter__()
            except BaseException:
                self._run.__exit__(None, None, None)
                raise
        return self._run

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self._step is not None:
                self._step.__exit__(kind, error, trace)
        finally:
            self._run.__exit__(kind, error, trace)

    async def __aenter__(self) -> Run[Any]:
        self._run.__enter__()
        if self._step is not None:
            try:
                await self._step.__aenter__()
            except BaseException:
                self._run.__exit__(None, None, None)
                raise
        return self._run

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._step is not None:
                await self._step.__aexit__(kind, error, trace)
        finally:
            self._run.__exit__(kind, error, trace)


def _run_of(client: FailpathClient, message: Any, flow: Flow | None, run_id: object) -> Run[Any]:
    carrier = _carrier_of(message)
    named, origin = unpack(carrier)
    if named is not None:
        if origin is not None and _is_of_this_message(trace.get_current_span(), origin.trace_id):
            return client.run(named.flow_key, named.run_id)
        return client.resume(carrier)
    current = client.current_run()
    if current is not None:
        return current
    return client.resume(carrier) if flow is None else client.run(flow, run_id if run_id is not None else _id_of(message))


def _carrier_of(message: Any) -> dict[str, str]:
    """What the headers hold: our own, else those of W3C."""
    found: dict[str, str] = {}
    try:
        for name, value in _pairs(_value(message, "headers")):
            text: Any = value.decode("utf-8", "replace") if isinstance(value, bytes) and len(value) <= _MAX_BYTES else value
            if isinstance(text, str) and name in (*_W3C, HEADER):
                found.setdefault(name, text)  # of several the first, as OpenTelemetry reads them
        own: Any = json.loads(found.pop(HEADER, "null"))
        if unpack(own).run is not None:
            return cast("dict[str, str]", own)
    except Exception as error:  # headers are the sender's, and a message the consumer's: anything may be in there
        if is_interruption(error):
            raise
        warn_once("kafka-headers", "the headers of a message could not be read", exc_info=True)
    return found


def _pairs(headers: Any) -> Iterable[tuple[str, Any]]:
    given: Any = headers or ()
    return cast("Iterable[tuple[str, Any]]", given.items() if isinstance(given, Mapping) else given)


def _is_of_this_message(span: Any, trace_id: int) -> bool:
    """Whether a span is the one that an instrumentation made of this message: below its producer's, or linked to it."""
    context = span.get_span_context()
    if context.trace_id == trace_id:
        return True
    return any(link.context.trace_id == trace_id for link in getattr(span, "links", None) or ())


def _id_of(message: Any) -> str:
    return "-".join(str(_value(message, name)) for name in ("topic", "partition", "offset"))


def _value(message: Any, name: str) -> Any:
    """An attribute in aiokafka and kafka-python, a method in confluent-kafka."""
    found = getattr(message, name, None)
    return found() if callable(found) else found
