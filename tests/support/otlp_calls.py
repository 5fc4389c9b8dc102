"""Calls of OTLP/gRPC for tests: one message to a server, and all of its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
GZIP = grpc.Compression.Gzip
DEFLATE = grpc.Compression.Deflate
CODES = grpc.StatusCode


@dataclass(frozen=True)
class CallAnswer:
    """The end of a call. ``retry_after`` is in seconds, from ``RetryInfo``."""

    code: Any
    details: str = ""
    body: bytes = b""
    status: Any = None
    retry_after: float | None = None

    @property
    def partial(self) -> tuple[int, str]:
        """How many items were refused, and the reason. Both services number these fields alike."""
        traces = ExportTraceServiceResponse.FromString(self.body).partial_success
        records = ExportLogsServiceResponse.FromString(self.body).partial_success
        assert traces.rejected_spans == records.rejected_log_records
        return traces.rejected_spans, traces.error_message


def channel(target: str, compression: Any = None) -> Any:
    """A connection of its own, not shared within the process."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0)]
    return grpc.insecure_channel(target, options, compression)


def answer_of(function: Any, message: Any, **options: Any) -> CallAnswer:
    """The end of a call by one of a channel's methods."""
    try:
        body, call = function.with_call(message, **{"timeout": 20, **options})
        return CallAnswer(call.code(), body=body)
    except grpc.RpcError as error:
        return refusal(error)


def refusal(error: Any) -> CallAnswer:
    """What a call ended with that failed."""
    raw = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    status = None if raw is None else Status.FromString(raw)
    retry_after = None
    for detail in () if status is None else status.details:
        info = RetryInfo()
        if detail.Unpack(info):
            retry_after = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
    return CallAnswer(error.code(), error.details() or "", status=status, retry_after=retry_after)


def call(
    target: str, message: Any = b"", method: str = TRACES, *, compression: Any = None, key: str | None = None
) -> CallAnswer:
    """One call over a connection of its own; ``key`` is shown as a bearer of it."""
    body = message if isinstance(message, bytes) else message.SerializeToString()
    metadata = () if key is None else (("authorization", f"Bearer {key}"),)
    with channel(target, compression) as opened:
        return answer_of(opened.unary_unary(method), body, metadata=metadata)
