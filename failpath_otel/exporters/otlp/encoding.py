"""Step events → bodies of OTLP log requests.

Built of OpenTelemetry's protobuf messages, not by way of the SDK's LoggerProvider: that one obeys OTEL_SDK_DISABLED and the
attribute limits, which must not change what is seen, and costs several times as much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, cast

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as PbResource
from opentelemetry.sdk.resources import Resource

from failpath_otel.events import semconv
from failpath_otel.events.step import StepEvent
from failpath_otel.events.text import as_text
from failpath_otel.events.to_log import log_attributes, severity_of
from failpath_otel.interruption import is_interruption
from failpath_otel.version import VERSION

MAX_BODY_BYTES: Final = 1024 * 1024
"""A quarter of what a gRPC server takes by default, and a twentieth of what a Collector takes by HTTP."""

_MAX_KNOWN_RESOURCES: Final = 64


class Body(NamedTuple):
    """An encoded request and the events in it."""

    events: Sequence[StepEvent]
    encoded: bytes


class Encoder:
    """Encodes events, each under the resource of its service.

    Args:
        resource: Gives the service's resource; asked at each call, since tracing may be set up late.
        clock: Gives the time of observation in nanoseconds since the Unix epoch.
    """

    def __init__(self, resource: Callable[[], Resource], clock: Callable[[], int]) -> None:
        self._resource = resource
        self._clock = clock
        self._base: Resource | None = None
        self._known: dict[str | None, ResourceLogs] = {}

    def bodies(self, events: Sequence[StepEvent], rejected: dict[str, str]) -> Iterator[Body]:
        """The events in bodies under the size limit; one that cannot be encoded is entered in ``rejected`` instead."""
        base, observed_at = self._resource(), self._clock()
        if base is not self._base:
            self._base, self._known = base, {}
        request, scopes = ExportLogsServiceRequest(), dict[str | None, ScopeLogs]()
        taken: list[StepEvent] = []
        size = 0
        for event in events:
            scope = scopes.get(event.service)
            if scope is None:
                scope = scopes[event.service] = self._scope(request, base, event.service)
            record = scope.log_records.add()
            try:
                _fill(record, event, observed_at)
            except Exception as error:
                if is_interruption(error):
                    raise
                del scope.log_records[-1]
                rejected[event.event_id] = f"cannot be encoded: {as_text(error)}"
                continue
            taken.append(event)
            size += record.ByteSize()
            if size > MAX_BODY_BYTES:
                yield Body(taken, request.SerializeToString())
                request, scopes, taken, size = ExportLogsServiceRequest(), {}, [], 0
        if taken:
            yield Body(taken, request.SerializeToString())

    def _scope(self, request: ExportLogsServiceRequest, base: Resource, service: str | None) -> ScopeLogs:
        known = self._known.get(service)
        if known is None:
            known = _resource_logs(base, service)
            if len(self._known) < _MAX_KNOWN_RESOURCES:
                self._known[service] = known
        request.resource_logs.append(known)
        return request.resource_logs[-1].scope_logs[0]


def _resource_logs(base: Resource, service: str | None) -> ResourceLogs:
    """A group for the events of one service, still without records.

    Of another service than the resource's, what the resource says of the service (its version, its instance) does not hold;
    what it says of host and process does.
    """
    group = ResourceLogs(resource=PbResource(), scope_logs=[ScopeLogs()])
    group.scope_logs[0].scope.name = semconv.SCOPE_NAME
    group.scope_logs[0].scope.version = VERSION
    attributes = dict(base.attributes)
    if attributes.get(semconv.SERVICE_NAME) != service:
        attributes = {key: value for key, value in attributes.items() if not key.startswith("service.")}
        if service is not None:
            attributes[semconv.SERVICE_NAME] = service
    for key, value in attributes.items():
        _set(group.resource.attributes.add(key=key).value, value)
    group.schema_url = base.schema_url
    return group


def _fill(record: LogRecord, event: StepEvent, observed_at: int) -> None:
    record.time_unix_nano = event.timestamp
    record.observed_time_unix_nano = observed_at
    record.event_name = semconv.EVENT_NAME
    number, record.severity_text = severity_of(event)
    record.severity_number = cast(Any, number)
    record.trace_id = _id(event.trace_id, 32)
    record.span_id = _id(event.span_id, 16)
    add = record.attributes.add
    for key, value in log_attributes(event).items():
        pair = add()
        pair.key = key
        if type(value) is str:
            pair.value.string_value = value
        else:
            _set(pair.value, value)


def _set(target: AnyValue, value: Any) -> None:
    if isinstance(value, str):
        target.string_value = value
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int):
        target.int_value = value
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, Sequence):
        target.array_value.SetInParent()
        for item in cast("Sequence[object]", value):
            _set(target.array_value.values.add(), item)
    else:
        target.string_value = as_text(value)


def _id(digits: str | None, length: int) -> bytes:
    """The id's bytes; empty where there is none, or where it is none that OpenTelemetry knows."""
    if digits is None or len(digits) != length:
        return b""
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return b""
