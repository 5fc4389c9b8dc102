"""Where an example's traces go: takes OTLP by HTTP and shows each trace as a tree, which the run's page links to."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from harness import within
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


class Traces:
    """The spans that came, with the names of their services."""

    def __init__(self) -> None:
        self.url = ""
        self._spans: list[tuple[str, Span]] = []
        self._lock = threading.Lock()

    def environ(self) -> dict[str, str]:
        """What a service needs in its environment to send its traces here."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            # By default spans leave every 5 s, which is long to look at.
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }

    def template(self) -> str:
        """For ``serve --trace-url``."""
        return f"{self.url}/trace/{{trace_id}}"

    def take(self, body: bytes) -> None:
        """Takes the body of one request."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            found = [(named.get("service.name", "?"), span) for scope in resource.scope_spans for span in scope.spans]
            with self._lock:
                self._spans += found

    def of(self, trace_id: str) -> list[tuple[str, Span]]:
        """The spans of one trace, in the order in which they began."""
        with self._lock:
            found = [(service, span) for service, span in self._spans if span.trace_id.hex() == trace_id]
        return sorted(found, key=lambda pair: pair[1].start_time_unix_nano)

    def tree(self, trace_id: str) -> list[str]:
        """One line a span, children below their parents."""
        spans = self.of(trace_id)
        known = {span.span_id for _, span in spans}

        def below(parent: bytes | None, depth: int) -> Iterator[str]:
            for service, span in spans:
                if span.parent_span_id == parent or (parent is None and span.parent_span_id not in known):
                    failed = "  ERROR" if span.status.code == Status.STATUS_CODE_ERROR else ""
                    yield f"{'  ' * depth}{span.name}  [{service}]{failed}"
                    yield from below(span.span_id, depth + 1)

        return list(below(None, 0))

    def until(self, trace_id: str, spans: int) -> bool:
        """Waits until so many spans of a trace are there."""
        return within(lambda: len(self.of(trace_id)) >= spans)


@contextlib.contextmanager
def taking_traces() -> Iterator[Traces]:
    """`Traces` on a free port of this machine."""
    traces = Traces()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            traces.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(ExportTraceServiceResponse().SerializeToString(), "application/x-protobuf")

        def do_GET(self) -> None:
            self.answer("\n".join(traces.tree(self.path.rpartition("/")[2])).encode(), "text/plain; charset=utf-8")

        def answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Stays silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        traces.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield traces
        finally:
            http.shutdown()
            thread.join()
