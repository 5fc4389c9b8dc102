"""The other side of an export: an OTLP/HTTP backend that records what arrives, and a gate that refuses as it is told."""

from __future__ import annotations

import gzip
import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from support.http_sink import Answer, HttpSink, Request, reply, reset


@dataclass(frozen=True)
class Item:
    """A span or a log record with its attributes and those of its resource as plain values."""

    name: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    proto: Span | LogRecord


@dataclass
class OtlpBackend:
    """A backend other than ours. ``traces`` and ``logs`` are what it took, the oldest first."""

    sink: HttpSink = field(default_factory=HttpSink)
    traces: list[Item] = field(default_factory=list)
    logs: list[Item] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.sink.url

    def names(self) -> list[str]:
        """The names of the spans, sorted."""
        return sorted(item.name for item in self.traces)

    def take(self, request: Request, connection: socket.socket) -> None:
        """Records a request and answers that all is well."""
        body = gzip.decompress(request.body) if request.headers.get("content-encoding") == "gzip" else request.body
        if request.line.split()[1] == "/v1/traces":
            self.traces += _spans(ExportTraceServiceRequest.FromString(body))
        elif request.line.split()[1] == "/v1/logs":
            self.logs += _records(ExportLogsServiceRequest.FromString(body))
        connection.sendall(reply(200).replace(b"application/json", b"application/x-protobuf"))


@contextmanager
def otlp_backend() -> Iterator[OtlpBackend]:
    """A backend that listens, until the end of the block."""
    backend = OtlpBackend()
    backend.sink.answer = backend.take
    backend.sink.start()
    try:
        yield backend
    finally:
        backend.sink.released.set()
        backend.sink.stop()


@dataclass
class Gate:
    """Stands between a sender and a server: passes every request on, or answers in the server's place.

    Set ``refuse`` to an `Answer` (`http_sink.always(503)`, `http_sink.reset`, ...) to have requests refused; ``None`` opens it.
    ``close`` has connections refused, as when the server's process is gone; ``open`` listens again on the same port.
    ``arrivals`` are the times (monotonic seconds) at which requests came, refused or not.
    """

    upstream: str
    sink: HttpSink = field(default_factory=HttpSink)
    refuse: Answer | None = None
    passed: int = 0
    refused: int = 0
    arrivals: list[float] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.sink.url

    def unanswered(self, request: Request, connection: socket.socket) -> None:
        """An answer for ``refuse``: the server takes the request, and its own answer is lost on the way back."""
        self._passed_on(request)
        reset(request, connection)

    def open(self) -> None:
        self.sink.answer = self._answer
        self.sink.start()

    def close(self) -> None:
        self.sink.stop()

    def _answer(self, request: Request, connection: socket.socket) -> None:
        self.arrivals.append(time.monotonic())
        refuse = self.refuse
        if refuse is not None:
            self.refused += 1
            refuse(request, connection)
            return
        connection.sendall(self._passed_on(request))
        self.passed += 1

    def _passed_on(self, request: Request) -> bytes:
        parts = urlsplit(self.upstream)
        assert parts.hostname is not None
        upstream = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
        try:
            method, path, _ = request.line.split()
            kept = {k: v for k, v in request.headers.items() if k not in ("host", "connection", "content-length")}
            upstream.request(method, path, request.body, kept)
            answer = upstream.getresponse()
            body = answer.read()
        finally:
            upstream.close()
        headers = [f"{k}: {v}" for k, v in answer.getheaders() if k.lower() not in ("connection", "date", "content-length")]
        head = [f"HTTP/1.1 {answer.status} X", f"Content-Length: {len(body)}", *headers]
        return "\r\n".join([*head, "", ""]).encode() + body


@contextmanager
def gate(upstream: str) -> Iterator[Gate]:
    """An open gate in front of a server."""
    between = Gate(upstream)
    between.open()
    try:
        yield between
    finally:
        between.sink.released.set()
        between.close()


def plain(value: AnyValue) -> Any:
    """An attribute's value."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {item.key: plain(item.value) for item in value.kvlist_value.values}
    return getattr(value, kind) if kind else None


def _plain_all(attributes: Any) -> dict[str, Any]:
    return {item.key: plain(item.value) for item in attributes}


def _spans(request: ExportTraceServiceRequest) -> list[Item]:
    return [
        Item(span.name, _plain_all(span.attributes), _plain_all(group.resource.attributes), span)
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _records(request: ExportLogsServiceRequest) -> list[Item]:
    return [
        Item(record.event_name, _plain_all(record.attributes), _plain_all(group.resource.attributes), record)
        for group in request.resource_logs
        for scope in group.scope_logs
        for record in scope.log_records
    ]
