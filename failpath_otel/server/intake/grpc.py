"""OTLP/gRPC: ``TraceService`` and ``LogsService`` on a port of their own. Nothing imports this unless that port is asked for.

Calls are refused and answered as requests over HTTP are: what that says by status and ``Retry-After``, this says by code and
``RetryInfo``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final, cast

import grpc  # type: ignore[import-untyped]
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from failpath_otel.errors import ConfigError
from failpath_otel.events.text import clip
from failpath_otel.server.http.body import MAX_WIRE_BYTES, READ_TIMEOUT_SECONDS
from failpath_otel.server.http.headers import PROTOBUF
from failpath_otel.server.http.problem import Problem
from failpath_otel.server.http.request_notes import RequestNotes
from failpath_otel.server.http.security import is_bearer
from failpath_otel.server.http.shutdown import Lifetime
from failpath_otel.server.intake.diagnostics import IntakeDiagnostics
from failpath_otel.server.intake.http import Intake
from failpath_otel.server.otlp.decode import LOGS, TRACES, Signal

METHODS: Final[Mapping[str, Signal]] = {
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export": TRACES,
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export": LOGS,
}
GRACE_SECONDS: Final = 1.0
MAX_DETAIL_BYTES: Final = 1024
"""It travels twice in the trailers, of which callers take 8 KiB."""

_GZIP_MAGIC: Final = b"\x1f\x8b"
"""No protobuf message begins so: there is no wire type 7."""

_OPTIONS: Final = (
    # A second server on the same port is to fail, and not to share the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_WIRE_BYTES),
    # We inflate within our own bounds, as over HTTP; older releases of gRPC inflate first and measure then.
    ("grpc.per_message_decompression", 0),
    # A bit for each coding: identity and gzip.
    ("grpc.compression_enabled_algorithms_bitset", 0b101),
    # More calls wait with their sender. A refusal would cost it the data.
    ("grpc.max_concurrent_streams", 100),
    # Who has gone without a word does not hold memory for ever; and who asks often is not taken for hostile.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)

_CODES: Final[Mapping[int, Any]] = {code.value[0]: code for code in grpc.StatusCode}

_log = logging.getLogger("failpath_otel.server")


class GrpcReceiver(grpc.GenericRpcHandler):  # type: ignore[misc]
    """One port. `bind`, then `start`; all of it belongs to the event loop."""

    def __init__(self, host: str, port: int, ingest_key: str | None) -> None:
        """``host`` is an address in digits; port 0 takes a free one."""
        self._host = f"[{host}]" if ":" in host else host
        self._port = port
        self._ingest_key = ingest_key
        self._server: Any = None
        self._intake: Intake | None = None
        self._diagnostics: IntakeDiagnostics | None = None
        self._lifetime: Lifetime | None = None
        self._stopping: asyncio.Future[None] | None = None

    @property
    def address(self) -> str:
        """Host and port; the real one after `bind`."""
        return f"{self._host}:{self._port}"

    async def bind(self) -> None:
        """Takes the port.

        Raises:
            ConfigError: It cannot be listened on.
        """
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers((self,))
        try:
            self._port = self._server.add_insecure_port(self.address)
        except RuntimeError as error:
            raise ConfigError(
                f"cannot listen on {self.address} for gRPC: {error}; give another --grpc-port, or 0 for a free one"
            ) from error

    async def start(self, intake: Intake, diagnostics: IntakeDiagnostics, lifetime: Lifetime) -> None:
        """Begins to take calls."""
        self._intake = intake
        self._diagnostics = diagnostics
        self._lifetime = lifetime
        await self._server.start()

    def begin_close(self) -> None:
        """Takes no more calls. Those under way may end within a second."""
        if self._stopping is None and self._server is not None:
            self._stopping = asyncio.ensure_future(self._server.stop(GRACE_SECONDS))

    async def close(self) -> None:
        """As `begin_close`, and waits for the end of it."""
        self.begin_close()
        if self._stopping is not None:
            await self._stopping

    def service(self, handler_call_details: Any) -> Any:
        """The handler of one call, chosen when its metadata is there and its message is not yet read; gRPC calls this."""
        signal = METHODS.get(handler_call_details.method)
        if signal is None:
            return None
        metadata = handler_call_details.invocation_metadata
        allowed = self._ingest_key is None or is_bearer(_last(metadata, "authorization"), self._ingest_key)
        agent = _last(metadata, "user-agent") or None

        async def export(_: Any, context: Any) -> bytes:
            notes = RequestNotes()
            try:
                answer = await self._export(signal, context, notes) if allowed else _unauthorized()
            except Problem as problem:
                notes.refusal = problem.detail
                self._notice(handler_call_details.method, agent, problem.status, notes)
                await _refuse(context, problem)
                raise AssertionError("a refusal ends the call") from None
            self._notice(handler_call_details.method, agent, 200, notes)
            return answer

        # On the wire a single message is a stream of one. A handler of streams reads it by itself, so that a caller who may
        # not call is not read at all, and one that stalls is not waited for without end.
        return cast(Any, grpc).stream_unary_rpc_method_handler(export)

    def _notice(self, method: str, agent: str | None, status: int, notes: RequestNotes) -> None:
        if self._diagnostics is not None:
            self._diagnostics.request(method, agent, status, notes)

    async def _export(self, signal: Signal, context: Any, notes: RequestNotes) -> bytes:
        assert self._intake is not None
        assert self._lifetime is not None
        try:
            raw = await self._lifetime.until_closing(_read(context))
            return await self._intake.take(signal, PROTOBUF, raw, raw.startswith(_GZIP_MAGIC), notes)
        except Problem:
            raise
        except Exception as error:
            # A fault of ours: the caller gets INTERNAL, the log holds the traceback.
            _log.exception("a call of OTLP/gRPC failed")
            raise Problem(500, "The server met an error of its own; its log says more.") from error


def _unauthorized() -> bytes:
    raise Problem(401, "Senders must show the ingest key: metadata authorization: Bearer <key>.")


async def _read(context: Any) -> bytes:
    """The call's message as it came, still compressed.

    Raises:
        Problem: It did not come in time, or there is none.
    """
    try:
        message = await asyncio.wait_for(context.read(), READ_TIMEOUT_SECONDS)
    except asyncio.TimeoutError:
        raise Problem.busy(f"The message did not arrive within {READ_TIMEOUT_SECONDS:.0f} s.", 1.0) from None
    if not isinstance(message, bytes):  # the end of the stream
        raise Problem(400, "The call carries no message.")
    return message


async def _refuse(context: Any, problem: Problem) -> None:
    code = _CODES[problem.rpc_code]
    detail = problem.detail
    if problem.status == 413:
        # The code and the words by which gRPC itself says so; senders that can divide a batch go by these.
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        detail = f"Received message larger than max: {detail}"
    detail = clip(detail, MAX_DETAIL_BYTES)
    status = Status(code=code.value[0], message=detail)
    if problem.retry_after is not None:
        status.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=problem.retry_after)))
    await context.abort(code, detail, (("grpc-status-details-bin", status.SerializeToString()),))


def _last(metadata: Any, wanted: str) -> str:
    """The last value of that name."""
    found = ""
    for name, value in metadata or ():
        if name == wanted and isinstance(value, str):
            found = value
    return found
