"""What the two transports of OTLP have in common."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Protocol

from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from failpath_otel.errors import ConfigError, ExportError
from failpath_otel.events.text import clip
from failpath_otel.exporters.otlp.settings import PROVIDERS_GROUP


class TooLargeError(ExportError):
    """The destination takes no request of this size; a smaller one may pass."""


class OtlpTransport(Protocol):
    """Sends encoded requests to one destination. Used by one thread at a time."""

    def send(self, body: bytes, deadline: float | None) -> ExportLogsServiceResponse:
        """The answer to a request that was taken, by ``deadline`` (monotonic seconds).

        Raises:
            RetryableError: No answer, or one by which OTLP lets the request be sent again.
            UnauthorizedError: The destination refuses who we are.
            TooLargeError: As it says.
            ExportError: The request is refused for good.
        """
        ...

    def close(self) -> None:
        """Closes the connection."""
        ...


def provided(name: str, kind: type[Any]) -> Any:
    """What the credential provider of this name gives, as the standard exporters load it.

    Raises:
        ConfigError: It gives something else.
    """
    for entry in entry_points(group=PROVIDERS_GROUP, name=name):
        credentials: Any = entry.load()()
        if isinstance(credentials, kind):
            return credentials
        raise ConfigError(f"credential provider {name!r} must give a {kind.__name__}, got {type(credentials).__name__}")
    raise ConfigError(f"there is no credential provider {name!r} in the group {PROVIDERS_GROUP}")


def parsed_status(body: bytes) -> Status | None:
    """The ``google.rpc.Status`` that an error's body should hold."""
    try:
        return Status.FromString(body)
    except DecodeError:
        return None


def detail_of(text: str) -> str:
    """What a destination says of itself, for the log."""
    return clip(text.strip(), 512) or "no details"
