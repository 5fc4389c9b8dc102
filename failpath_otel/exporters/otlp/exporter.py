"""OtlpExporter: each event as an OTLP log record, to a Collector or any backend that takes OTLP.

The transport is ours and not that of the standard exporters, which try again by themselves, sleep meanwhile, know no timeout
for a single call, and tell only that something failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from failpath_otel import clock
from failpath_otel.errors import ExportError, RejectedError, RetryableError, UnauthorizedError
from failpath_otel.events.step import StepEvent
from failpath_otel.events.text import clip
from failpath_otel.exporters.otlp.encoding import Encoder
from failpath_otel.exporters.otlp.settings import OtlpSettings, read_settings
from failpath_otel.exporters.otlp.transport import OtlpTransport, TooLargeError
from failpath_otel.interruption import is_interruption
from failpath_otel.notices import warn_once


class OtlpExporter:
    """Sends events as log records named ``failpath.step``; ``docs/wire.md`` tells what they carry.

    Where to and how is set by OpenTelemetry's own variables, ``OTEL_EXPORTER_OTLP_ENDPOINT`` and its kin, which are read here.
    408, 429, 502, 503, 504, the retryable codes of gRPC and connection faults are raised as `RetryableError`; 401, 403 and
    their like in gRPC as `UnauthorizedError`; what is too large is divided; any other answer refuses the request.

    Args:
        environ: The environment; the process's own without it.
        tracer_provider: Whose resource the records carry; without one, the global one of the moment.
        user_agent: The ``User-Agent`` of requests.

    Raises:
        ConfigError: A variable cannot be used.
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        tracer_provider: Any = None,
        user_agent: str = "failpath-otel",
    ) -> None:
        self._settings = read_settings(environ)
        self._user_agent = user_agent
        self._transport = _transport(self._settings, user_agent)
        self._provider = tracer_provider
        self._default_resource: Resource | None = None
        self._encoder = Encoder(self._resource, lambda: clock.time_ns())  # noqa: PLW0108 - it may be replaced
        if self._settings.looks_like_grpc:
            warn_once(
                "otlp-port",
                "OTLP goes by HTTP to %s, but 4317 is the port for gRPC; set OTEL_EXPORTER_OTLP_PROTOCOL=grpc or take 4318",
                self._settings.endpoint,
            )

    def __repr__(self) -> str:
        return f"OtlpExporter({self._settings.endpoint!r}, protocol={self._settings.protocol!r})"

    def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
        """Sends the batch in as few requests as the size limit allows, within ``timeout_millis`` in all.

        Where ``OTEL_EXPORTER_OTLP_TIMEOUT`` is set and less, a request has no more than that.

        Raises:
            RetryableError, RejectedError, UnauthorizedError: As the class describes.
        """
        deadline = clock.monotonic() + timeout_millis / 1000 if timeout_millis else None
        rejected: dict[str, str] = {}
        for events, encoded in self._encoder.bodies(batch, rejected):
            self._send(events, encoded, deadline, rejected)
        if rejected:
            raise RejectedError(rejected)

    def probe(self, *, timeout_millis: int) -> None:
        """Sends a request without log records: whether the way and the headers are good.

        Raises:
            RetryableError, UnauthorizedError, ExportError: As the class describes.
        """
        transport = _transport(self._settings, self._user_agent)  # of its own, for the worker may be using the other
        try:
            transport.send(b"", self._earlier(clock.monotonic() + timeout_millis / 1000 if timeout_millis else None))
        finally:
            transport.close()

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def _send(self, events: Sequence[StepEvent], encoded: bytes, deadline: float | None, rejected: dict[str, str]) -> None:
        try:
            response = self._transport.send(encoded, self._earlier(deadline))
        except (RetryableError, UnauthorizedError):
            raise
        except TooLargeError as error:
            if len(events) == 1:
                rejected[events[0].event_id] = str(error)
                return
            half = len(events) // 2
            for part in (events[:half], events[half:]):
                for smaller in self._encoder.bodies(part, rejected):
                    self._send(smaller.events, smaller.encoded, deadline, rejected)
        except ExportError as error:
            # What is refused here takes no other request of the batch down.
            rejected.update((event.event_id, str(error)) for event in events)
        else:
            _note_partial_success(response, events, rejected)

    def _earlier(self, deadline: float | None) -> float | None:
        limit = self._settings.timeout_seconds
        if limit is None:
            return deadline
        return clock.monotonic() + limit if deadline is None else min(deadline, clock.monotonic() + limit)

    def _resource(self) -> Resource:
        """The provider's resource, else one of the environment's variables: a Resource is what it says itself to be."""
        resource: Any = getattr(self._provider or _global_provider(), "resource", None)
        if isinstance(resource, Resource):
            return resource
        if self._default_resource is None:
            try:
                self._default_resource = Resource.create()
            except Exception as error:  # it starts threads, which cannot be had any more at the interpreter's exit
                if is_interruption(error):
                    raise
                return OTELResourceDetector().detect()
        return self._default_resource


def _transport(settings: OtlpSettings, user_agent: str) -> OtlpTransport:
    if settings.protocol == "grpc":
        from failpath_otel.exporters.otlp.grpc import GrpcTransport

        return GrpcTransport(settings, user_agent)
    from failpath_otel.exporters.otlp.http import HttpTransport

    return HttpTransport(settings, user_agent)


def _global_provider() -> Any:
    try:
        return trace.get_tracer_provider()
    except Exception as error:  # OTEL_PYTHON_TRACER_PROVIDER names one that cannot be loaded, which Tracing has warned of
        if is_interruption(error):
            raise
        return None


def _note_partial_success(response: ExportLogsServiceResponse, events: Sequence[StepEvent], rejected: dict[str, str]) -> None:
    """OTLP tells how many records were refused, not which, and forbids to send them again."""
    partial = response.partial_success
    count, reason = partial.rejected_log_records, clip(partial.error_message, 512) or "no reason given"
    if count >= len(events):
        rejected.update((event.event_id, reason) for event in events)
    elif count > 0:
        warn_once("otlp-partial", "%d of %d log records were refused, which ones is not known: %s", count, len(events), reason)
    elif partial.error_message:
        warn_once("otlp-partial", "the destination takes log records with a warning: %s", reason)
