"""A real gRPC server on loopback that takes log records, and misbehaves as a test tells it to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

SERVICE = "opentelemetry.proto.collector.logs.v1.LogsService"


@dataclass
class Call:
    """One call as it came over the wire."""

    request: ExportLogsServiceRequest
    metadata: dict[str, str]
    peer: str

    @property
    def records(self) -> list[Any]:
        return [record for group in self.request.resource_logs for scope in group.scope_logs for record in scope.log_records]


Answer = Callable[[Call, Any], ExportLogsServiceResponse]
"""Gives the response, or ends the call by its context."""


@dataclass
class GrpcSink:
    """Counts what arrives, by event id. ``answer`` says how to react; by default everything is taken."""

    port: int = 0
    credentials: Any = None
    calls: list[Call] = field(default_factory=list)
    arrivals: Counter[str] = field(default_factory=Counter)
    answer: Answer | None = None
    released: threading.Event = field(default_factory=threading.Event)
    _server: Any = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listens; after `stop`, on the same port."""
        options = [("grpc.so_reuseport", 0)]
        self._server = grpc.server(futures.ThreadPoolExecutor(16), options=options)
        handler = grpc.unary_unary_rpc_method_handler(
            self._export, ExportLogsServiceRequest.FromString, ExportLogsServiceResponse.SerializeToString
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": handler}),))
        address = f"127.0.0.1:{self.port}"
        if self.credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, self.credentials)
        self._server.start()

    def stop(self) -> None:
        """From now on connections are refused, and open ones are cut."""
        if self._server is not None:
            self._server.stop(None).wait(10)
            self._server = None

    def take(self, call: Call) -> ExportLogsServiceResponse:
        """Takes the records."""
        for record in call.records:
            identity = next(item.value.string_value for item in record.attributes if item.key == "failpath.event.id")
            self.arrivals[identity] += 1
        return ExportLogsServiceResponse()

    def _export(self, request: ExportLogsServiceRequest, context: Any) -> ExportLogsServiceResponse:
        call = Call(request, dict(context.invocation_metadata()), context.peer())
        self.calls.append(call)
        return self.take(call) if self.answer is None else self.answer(call, context)


def refused(code: Any, details: str = "no", retry_after: float | None = None) -> Answer:
    """Ends every call with this code, with ``RetryInfo`` where a time is given."""

    def answer(call: Call, context: Any) -> ExportLogsServiceResponse:
        if retry_after is not None:
            status = Status(code=code.value[0], message=details)
            status.details.add().Pack(RetryInfo(retry_delay=Duration(nanos=int(retry_after * 1e9))))
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, details)
        raise AssertionError("abort() raises")

    return answer


def hang(sink: GrpcSink) -> Answer:
    """Does not answer before ``sink.released``."""

    def answer(call: Call, context: Any) -> ExportLogsServiceResponse:
        sink.released.wait(60)
        return ExportLogsServiceResponse()

    return answer


@contextmanager
def grpc_sink(credentials: Any = None) -> Iterator[GrpcSink]:
    """A sink that listens, until the end of the block."""
    sink = GrpcSink(credentials=credentials)
    sink.start()
    try:
        yield sink
    finally:
        sink.released.set()
        sink.stop()
