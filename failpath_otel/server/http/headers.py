"""How a request is read: its headers, and which encoding it speaks."""

from __future__ import annotations

from typing import Final

from starlette.types import Scope

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"


def header(scope: Scope, name: bytes) -> str | None:
    """The last value of a request header, ``name`` in lower case; ``None`` where it is not there."""
    found = None
    for key, value in scope["headers"]:
        if key == name:
            found = value.decode("latin-1")
    return found


def speaks_otlp(path: str) -> bool:
    """True where OTLP senders call, also for signals that are not taken here, such as metrics."""
    return path.startswith("/v1/") and path != "/v1/events"


def media_type(scope: Scope) -> str:
    """The request's content type in lower case without parameters; empty where it has none."""
    return (header(scope, b"content-type") or "").partition(";")[0].strip().lower()


def speaks_json(scope: Scope) -> bool:
    """True where the request's body is JSON."""
    return media_type(scope) == JSON
