"""The settings of one server. Frozen; the environment is read by the command line, not here."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from failpath_otel.errors import ConfigError
from failpath_otel.events.step import StepEvent
from failpath_otel.flows import DEFAULT_PATH, Flows
from failpath_otel.rules import SpanRules

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 4600
"""Not 4318, where a Collector on the same machine listens."""
DEFAULT_STUCK_AFTER_SECONDS: Final = 60.0
MIN_RETAIN_SECONDS: Final = 60
"""As long as a run may be quiet before it counts as ended, and a little."""
MIN_SIZE_BYTES: Final = 10_000_000
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})

_HOST_NAME: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")
_SECRET: Final = re.compile(r"[!-~]{1,1024}")
_FIELD: Final = re.compile(r"\{[^{}]*\}|[{}]")
_UNSEEN: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")
_DB_FILE: Final = "failpath.db"


class Upstream(Protocol):
    """Takes batches of events there. Called from one thread."""

    def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
        """Returning means that all of the batch is taken.

        Raises:
            RetryableError: Not now.
            RejectedError: The named events are refused for good, the others are taken.
            BatchRefusedError: The batch is refused for what is in it, nobody says which event.
            UnauthorizedError: The key is refused.
            ExportError: What is there takes no events.
        """
        ...

    def probe(self, *, timeout_millis: int) -> object:
        """Asks with an empty batch; returning means that it is taken, and what it raises is as for ``export``."""
        ...

    def close(self) -> None:
        """Lets go of the connection."""
        ...


@dataclass(frozen=True)
class Destination:
    """Where events go on to.

    Args:
        url: The base URL, for people and for the check that a server does not send to itself.
        connect: Makes what sends there; called once for each thread that sends.
    """

    url: str
    connect: Callable[[], Upstream] = field(repr=False)


@dataclass(frozen=True)
class Settings:
    """One server.

    Args:
        db: Path of the SQLite database, or a database URL; ``None`` keeps nothing, which takes ``forward``.
        flows: The declared flows.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        grpc_port: Port to take OTLP/gRPC on, at the same address; 0 takes a free one, ``None`` none.
        stuck_after_seconds: After which a running step without history counts as stuck.
        retain_seconds: A run is deleted when nothing of it arrived for so long; ``None`` keeps it.
        max_size_bytes: The oldest runs are deleted when the SQLite database holds more; ``None``: no bound.
        token: What readers must show; ``None`` asks nothing of them.
        ingest_key: What senders must show; ``None`` asks nothing of them.
        allowed_hosts: NameCache beside the loopback ones under which the server may be called.
        forward: The server to which events go on.
        rules: Which spans of others are steps.
        trace_url: The address of a trace in another tool, with ``{trace_id}`` and, if it takes one, ``{span_id}`` in it.

    Raises:
        ConfigError: A value that cannot be used, or an address off loopback without token and ingest key.
    """

    db: str | None
    flows: Flows = field(default_factory=Flows)
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    grpc_port: int | None = None
    stuck_after_seconds: float = DEFAULT_STUCK_AFTER_SECONDS
    retain_seconds: float | None = None
    max_size_bytes: int | None = None
    token: str | None = field(default=None, repr=False)
    ingest_key: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    forward: Destination | None = None
    trace_url: str | None = None
    rules: SpanRules = field(default_factory=SpanRules)

    def __post_init__(self) -> None:
        if not self.host:
            raise ConfigError("--host must be an address or a name, got an empty one")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port must be from 0 to 65535, got {self.port}")
        if self.grpc_port is not None and not 0 <= self.grpc_port <= 65535:
            raise ConfigError(f"--grpc-port must be from 0 to 65535, got {self.grpc_port}")
        if self.grpc_port and self.grpc_port == self.port:
            raise ConfigError(f"--grpc-port must be another one than --port, got {self.port} for both")
        if not 0 < self.stuck_after_seconds < float("inf"):
            raise ConfigError(f"--stuck-after must be a number of seconds above 0, got {self.stuck_after_seconds}")
        self._check_keeping()
        if self.trace_url is not None:
            _check_trace_url(self.trace_url)
        for option, secret in (("--token", self.token), ("--ingest-key", self.ingest_key)):
            if secret is not None and _SECRET.fullmatch(secret) is None:
                raise ConfigError(f"{option} must be 1 to 1024 visible ASCII characters without spaces")
        for name in self.allowed_hosts:
            if host_name(name) is None:
                raise ConfigError(f"--allow-host must be a host name or an address, with or without a port, got {name!r}")
        missing = [option for option, secret in (("--token", self.token), ("--ingest-key", self.ingest_key)) if secret is None]
        if missing and not is_loopback(self.host):
            raise ConfigError(
                f"--host {self.host} can be reached from other machines, which takes {' and '.join(missing)} "
                "(or FAILPATH_TOKEN and FAILPATH_INGEST_KEY); --host 127.0.0.1 does not"
            )

    def _check_keeping(self) -> None:
        if self.retain_seconds is not None and not MIN_RETAIN_SECONDS <= self.retain_seconds < float("inf"):
            raise ConfigError(f"--retain must be at least {MIN_RETAIN_SECONDS} s, got {self.retain_seconds:g} s")
        if self.max_size_bytes is not None and self.max_size_bytes < MIN_SIZE_BYTES:
            raise ConfigError(f"--max-size must be at least {MIN_SIZE_BYTES // 1_000_000} MB, got {self.max_size_bytes} bytes")
        if self.max_size_bytes is not None and self.db is not None and self.db.startswith("postgres"):
            raise ConfigError("--max-size is for SQLite; a PostgreSQL database is bounded by --retain alone")
        if self.db is None and self.forward is None:
            raise ConfigError("--no-store keeps no event, so it takes --forward-to and the URL of the server that does")

    @property
    def host_names(self) -> frozenset[str]:
        """The names that a request's ``Host`` may carry."""
        own = {name for name in map(host_name, (self.host, *self.allowed_hosts)) if name is not None}
        return LOOPBACK_NAMES | own


def _check_trace_url(template: str) -> None:
    """Only what a browser opens as a page may become a link, and nothing but the two ids is put into it."""
    fields = set(_FIELD.findall(template))
    try:
        parts = urlsplit(template)
        host = parts.hostname
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host or _UNSEEN.search(template):
        raise ConfigError(f"--trace-url must begin with http:// or https:// and a host, without spaces, got {template!r}")
    if _FIELD.search(parts.netloc):
        raise ConfigError(f"--trace-url must have its ids after the host, got {template!r}")
    if "{trace_id}" not in fields or fields - {"{trace_id}", "{span_id}"}:
        raise ConfigError(
            "--trace-url must hold {trace_id} and may hold {span_id}, as in http://localhost:16686/trace/{trace_id}; "
            f"other braces are written %7B and %7D; got {template!r}"
        )


def host_name(text: str) -> str | None:
    """The host of a ``Host`` header in lower case, without its port; ``None`` where it is malformed."""
    text = text.strip().lower()
    if text.startswith("["):
        inner, closed, port = text[1:].partition("]")
        port = port.removeprefix(":") if port.startswith(":") else port and "?"
        return _address(inner) if closed and (not port or port.isdecimal()) else None
    if text.count(":") > 1:
        return _address(text)
    name, colon, port = text.partition(":")
    if colon and port and not (port.isascii() and port.isdecimal()):
        return None
    name = name.removesuffix(".")
    return name if _HOST_NAME.fullmatch(name) else None


def _address(text: str) -> str | None:
    try:
        return ipaddress.IPv6Address(text).compressed
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """True where only this machine can reach ``host``."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def default_db(start: Path, environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Where runs are kept: in the nearest ``.failpath`` folder upward of ``start``, else in the user's data folder."""
    start = start.absolute()
    for folder in (start, *start.parents):
        if (folder / DEFAULT_PATH.parent).is_dir():
            return folder / DEFAULT_PATH.parent / _DB_FILE
    return _data_folder(environ, platform) / "failpath-otel" / _DB_FILE


def _data_folder(environ: Mapping[str, str], platform: str) -> Path:
    if platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    # The XDG base directory specification: a relative path is to be passed over.
    configured = environ.get("XDG_DATA_HOME", "")
    return Path(configured) if configured.startswith("/") else Path.home() / ".local" / "share"
