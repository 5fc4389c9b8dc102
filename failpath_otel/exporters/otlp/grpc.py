"""OTLP over gRPC: ``LogsService/Export``. Nothing imports this before a client with that protocol is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

import grpc  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from failpath_otel import clock
from failpath_otel.endpoint import NOBODY, Tls, is_loopback
from failpath_otel.errors import ConfigError, ExportError, RetryableError, UnauthorizedError
from failpath_otel.exporters.otlp.settings import OtlpSettings
from failpath_otel.exporters.otlp.transport import TooLargeError, detail_of, parsed_status, provided
from failpath_otel.interruption import is_interruption

_METHOD: Final = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
_Code = grpc.StatusCode
_Export = Callable[..., ExportLogsServiceResponse]
_RETRYABLE: Final = frozenset(
    {_Code.CANCELLED, _Code.DEADLINE_EXCEEDED, _Code.ABORTED, _Code.OUT_OF_RANGE, _Code.UNAVAILABLE, _Code.DATA_LOSS}
)
"""Those of the specification. RESOURCE_EXHAUSTED stands apart."""
_TOO_LARGE: Final = ("larger than max", "exceeds maximum")
"""How gRPC's implementations say that a message is too large, for which there is no code of its own."""


class _Until(float):
    """Seconds that lead to the same moment whatever time it is held to be.

    gRPC adds them to what `time.time` says, which a test may have frozen, and its core takes the sum for a time of day.
    """

    def __radd__(self, now: float) -> float:
        return clock.time_ns() / 1e9 + float(self)


class GrpcTransport:
    """Calls over one channel, which is opened anew after a failure. See `OtlpTransport`.

    gRPC waits longer and longer before it connects again, and fails each call meanwhile; how long to wait is the sender's to
    say. The channel shares no connection with others of the process, and a forked child opens its own.
    """

    def __init__(self, settings: OtlpSettings, user_agent: str) -> None:
        self._settings = settings
        self._metadata = tuple(settings.headers.items())
        self._options: list[tuple[str, Any]] = [
            ("grpc.primary_user_agent", user_agent),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if is_loopback(f"//{settings.endpoint}"):
            # What is meant for this machine must not go to a proxy from the environment.
            self._options.append(("grpc.enable_http_proxy", 0))
        self._channel: grpc.Channel | None = None
        self._export: _Export | None = None
        self._pid = 0
        self._inherited: list[grpc.Channel] = []

    def send(self, body: bytes, deadline: float | None) -> ExportLogsServiceResponse:
        """As `OtlpTransport` says."""
        timeout = None if deadline is None else _Until(deadline - clock.monotonic())
        if timeout is not None and timeout <= 0:
            raise RetryableError(f"no time was left to reach {self._settings.endpoint}")
        try:
            return self._opened()(body, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            self.close()
            raise self._translated(error) from error
        except ConfigError:
            raise
        except Exception as error:
            # Such as a certificate's file that is away while it is renewed.
            if not isinstance(error, OSError) and is_interruption(error):
                raise
            self.close()
            raise RetryableError(
                f"{self._settings.endpoint} cannot be reached: {str(error) or type(error).__name__}"
            ) from error

    def close(self) -> None:
        """Closes the channel."""
        channel, self._channel = self._channel, None
        if channel is None:
            return
        if self._pid == os.getpid():
            channel.close()
        else:
            self._inherited.append(channel)  # the parent's: to close it, or to have it collected, would touch its connection

    def _opened(self) -> _Export:
        if self._channel is None or self._export is None or self._pid != os.getpid():
            self.close()
            self._channel = channel = self._open()
            self._pid = os.getpid()
            # Bodies are encoded already.
            self._export = cast(_Export, channel.unary_unary(_METHOD, None, ExportLogsServiceResponse.FromString))
        return self._export

    def _open(self) -> grpc.Channel:
        settings = self._settings
        compression = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}.get(settings.compression)
        if settings.insecure:
            return grpc.insecure_channel(settings.endpoint, self._options, compression)
        return grpc.secure_channel(settings.endpoint, self._credentials(), self._options, compression)

    def _credentials(self) -> grpc.ChannelCredentials:
        settings = self._settings
        if settings.credential_provider is not None:
            credentials: grpc.ChannelCredentials = provided(settings.credential_provider, grpc.ChannelCredentials)
            return credentials
        # Read each time, since certificates are renewed.
        tls = settings.tls
        own = [None if path is None else Path(path).read_bytes() for path in (tls.client_key, tls.client_certificate)]
        return grpc.ssl_channel_credentials(_roots(tls), own[0] or own[1], own[1])

    def _translated(self, error: Any) -> ExportError:
        code, details = error.code(), detail_of(error.details() or "")
        said = f"{self._settings.endpoint} answered {code.name}: {details}"
        if code in (_Code.UNAUTHENTICATED, _Code.PERMISSION_DENIED):
            return UnauthorizedError(f"{said}; check OTEL_EXPORTER_OTLP_HEADERS")
        if code is _Code.RESOURCE_EXHAUSTED:
            if any(text in details for text in _TOO_LARGE):
                return TooLargeError(said)
            # Without RetryInfo the specification counts this as refused, but it is what a busy gateway says, and like the
            # standard exporter we had rather hold the events than lose them.
            return RetryableError(said, retry_after=_retry_delay(error))
        if code in _RETRYABLE:
            return RetryableError(said, retry_after=_retry_delay(error))
        return ExportError(said)


def _roots(tls: Tls) -> bytes | None:
    """Whom to trust: without a certificate and a variable that names one, gRPC knows by itself."""
    if tls.certificate is None and os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
        return None
    trust = tls.trust()
    trust.warn()
    return None if trust.named_by == NOBODY else trust.read()


def _retry_delay(error: Any) -> float | None:
    """Seconds from the ``RetryInfo`` in the status, by which a server says how long it is busy."""
    trailing: Sequence[tuple[str, Any]] = error.trailing_metadata() or ()
    status = parsed_status(dict(trailing).get("grpc-status-details-bin", b""))
    for detail in () if status is None else status.details:
        info = RetryInfo()
        if detail.Unpack(info):
            return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    return None
