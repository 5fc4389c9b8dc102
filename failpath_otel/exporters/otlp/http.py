"""OTLP over HTTP: protobuf bodies to ``/v1/logs``."""

from __future__ import annotations

import gzip
import zlib
from typing import Final

import requests
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from failpath_otel.errors import ExportError, RetryableError, UnauthorizedError
from failpath_otel.exporters.otlp.settings import OtlpSettings
from failpath_otel.exporters.otlp.transport import TooLargeError, detail_of, parsed_status, provided
from failpath_otel.exporters.posting import Answer, Poster

_PROTOBUF: Final = "application/x-protobuf"
_RETRYABLE: Final = frozenset({408, 429, 502, 503, 504})
"""The four of the specification, and 408, which says that the request never arrived whole. All else, 500 among it, is refused
for good: OTLP forbids to send it again, and a Collector says 500 of data that it will never take."""


class HttpTransport:
    """Posts requests over one kept-alive connection. See `OtlpTransport`."""

    def __init__(self, settings: OtlpSettings, user_agent: str) -> None:
        self._url = settings.endpoint
        self._compression = settings.compression
        provider = settings.credential_provider
        self._poster = Poster(
            settings.endpoint,
            {"user-agent": user_agent, **settings.headers},
            settings.tls,
            open_session=None if provider is None else lambda: provided(provider, requests.Session),
        )
        self._headers = {"Content-Type": _PROTOBUF}
        if settings.compression != "none":
            self._headers["Content-Encoding"] = settings.compression

    def send(self, body: bytes, deadline: float | None) -> ExportLogsServiceResponse:
        """As `OtlpTransport` says."""
        answer = self._poster.post(self._compressed(body), self._headers, deadline)
        status = answer.status
        if 200 <= status < 300:
            return _response(answer)
        said = f"{self._url} answered {status}: {_detail(answer)}"
        if status in _RETRYABLE:
            raise RetryableError(said, retry_after=answer.retry_after)
        if status in (401, 403):
            raise UnauthorizedError(f"{said}; check OTEL_EXPORTER_OTLP_HEADERS")
        if status == 413:
            raise TooLargeError(said)
        if 300 <= status < 400:
            target = detail_of(str(answer.headers.get("Location", "nowhere")))
            raise ExportError(f"{self._url} redirects ({status}) to {target}, which is not followed; set that as the endpoint")
        raise ExportError(said)

    def close(self) -> None:
        """Closes the connection."""
        self._poster.close()

    def _compressed(self, body: bytes) -> bytes:
        if self._compression == "gzip":
            return gzip.compress(body, compresslevel=1, mtime=0)
        return zlib.compress(body, 1) if self._compression == "deflate" else body


def _response(answer: Answer) -> ExportLogsServiceResponse:
    """The message in the answer; an empty one where there is none, since the status says that all is well."""
    if not str(answer.headers.get("Content-Type", "")).startswith(_PROTOBUF):
        return ExportLogsServiceResponse()
    try:
        return ExportLogsServiceResponse.FromString(answer.body)
    except DecodeError:
        return ExportLogsServiceResponse()


def _detail(answer: Answer) -> str:
    if str(answer.headers.get("Content-Type", "")).startswith(_PROTOBUF):
        status = parsed_status(answer.body)
        return detail_of("" if status is None else status.message)
    return detail_of(answer.body[:512].decode("utf-8", "replace"))
