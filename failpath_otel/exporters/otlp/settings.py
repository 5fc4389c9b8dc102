"""OtlpSettings: where log records go and how, from OpenTelemetry's own variables.

The names and rules are those of the OTLP exporter specification. The variable for logs counts more than the general one, and
an empty variable counts as not set. A value that the standard exporters would pass over with a warning, or fail on later, is
a `ConfigError` here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Final, Literal, cast
from urllib.parse import urlsplit

from opentelemetry.util.re import parse_env_headers

from failpath_otel.endpoint import Tls, checked_tls
from failpath_otel.errors import ConfigError

Protocol = Literal["http/protobuf", "grpc"]
Compression = Literal["none", "gzip", "deflate"]

PROTOCOLS: Final = ("http/protobuf", "grpc")
COMPRESSIONS: Final = ("none", "gzip", "deflate")
LOGS_PATH: Final = "/v1/logs"
PROVIDERS_GROUP: Final = "opentelemetry_otlp_credential_provider"

_PREFIX: Final = "OTEL_EXPORTER_OTLP_"
_GRPC_PORT: Final = 4317


@dataclass(frozen=True)
class OtlpSettings:
    """Everything that the variables say, checked.

    Attributes:
        endpoint: The whole URL for HTTP, the target for gRPC.
        insecure: gRPC without TLS.
        headers: Of each request, in lower case; they may hold secrets.
        timeout_seconds: How long one request may take; ``None`` where no variable says so.
        tls: Whom to trust, and who we are.
        credential_provider: The name of an entry point that authorizes requests.
    """

    protocol: Protocol
    endpoint: str
    insecure: bool
    headers: Mapping[str, str] = field(repr=False)
    compression: Compression
    timeout_seconds: float | None
    tls: Tls
    credential_provider: str | None

    @property
    def looks_like_grpc(self) -> bool:
        """Whether HTTP would go to the port on which Collectors take gRPC."""
        return self.protocol != "grpc" and urlsplit(self.endpoint).port == _GRPC_PORT


def read_settings(environ: Mapping[str, str] | None = None) -> OtlpSettings:
    """The settings of the environment.

    Raises:
        ConfigError: A value cannot be used; the message names the variable, the value and what is allowed.
    """
    reading = _Reading(os.environ if environ is None else environ)
    name, text = reading.find("PROTOCOL")
    protocol = cast(Protocol, _choice(name, text or "http/protobuf", PROTOCOLS))
    if protocol == "grpc":
        endpoint, insecure = _grpc_endpoint(reading)
    else:
        endpoint, insecure = _http_endpoint(reading), False
    return OtlpSettings(
        protocol=protocol,
        endpoint=endpoint,
        insecure=insecure,
        headers=_headers(*reading.find("HEADERS")),
        compression=cast(Compression, _choice(*reading.find("COMPRESSION", "none"), COMPRESSIONS)),
        timeout_seconds=_seconds(*reading.find("TIMEOUT")),
        tls=_tls(reading),
        credential_provider=_provider(*reading.provider("GRPC" if protocol == "grpc" else "HTTP")),
    )


class _Reading:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def find(self, option: str, default: str = "") -> tuple[str, str]:
        """The variable that counts and its value."""
        general = f"{_PREFIX}{option}"
        return self._first(f"{_PREFIX}LOGS_{option}", general) or (general, default)

    def special(self, option: str) -> tuple[str, str]:
        """The variable for logs alone."""
        name = f"{_PREFIX}LOGS_{option}"
        return name, self._environ.get(name, "").strip()

    def provider(self, transport: str) -> tuple[str, str]:
        """The Python exporters' own variable for what authorizes requests."""
        general = f"OTEL_PYTHON_EXPORTER_OTLP_{transport}_CREDENTIAL_PROVIDER"
        special = f"OTEL_PYTHON_EXPORTER_OTLP_{transport}_LOGS_CREDENTIAL_PROVIDER"
        return self._first(special, general) or (general, "")

    def _first(self, *names: str) -> tuple[str, str] | None:
        found = ((name, self._environ.get(name, "").strip()) for name in names)
        return next((pair for pair in found if pair[1]), None)


def _choice(name: str, text: str, choices: tuple[str, ...]) -> str:
    if text.lower() in choices:
        return text.lower()
    raise ConfigError(f"{name} must be one of {', '.join(choices)} for the otlp exporter, got {text!r}")


def _http_endpoint(reading: _Reading) -> str:
    name, url = reading.special("ENDPOINT")
    if url:
        return _url(name, url)
    name, url = reading.find("ENDPOINT", "http://localhost:4318")
    if "?" in url or "#" in url:
        raise ConfigError(f"{name} is a base URL, to which {LOGS_PATH} is added, and so carries no query, got {url!r}")
    return _url(name, url).rstrip("/") + LOGS_PATH


def _grpc_endpoint(reading: _Reading) -> tuple[str, bool]:
    """The target and whether it is without TLS: the scheme says so, and where there is none, ``…_INSECURE``."""
    name, text = reading.find("ENDPOINT", "http://localhost:4317")
    if text.startswith(("http://", "https://")):
        return urlsplit(_url(name, text)).netloc, text.startswith("http://")
    if " " in text or not text.isprintable():
        raise ConfigError(f"{name} must be a URL such as http://localhost:4317 or a gRPC target, got {text!r}")
    return text, _choice(*reading.find("INSECURE", "false"), ("true", "false")) == "true"


def _url(name: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        usable = usable and url.isprintable() and " " not in url
    except ValueError:
        usable = False
    if "@" in url.partition("?")[0]:
        # The value may hold a password and so is not shown.
        raise ConfigError(f"{name} must not hold a user name or password; set {_PREFIX}HEADERS to authorization=…")
    if not usable:
        raise ConfigError(f"{name} must be an http:// or https:// URL such as http://localhost:4318, got {url!r}")
    return url


def _headers(name: str, text: str) -> Mapping[str, str]:
    headers = dict(parse_env_headers(text, liberal=True))
    for key, value in headers.items():
        if not value.isascii() or not (value.isprintable() or not value):
            # The value is perhaps a secret and so is not shown.
            raise ConfigError(f"{name}: the value of {key} holds characters that a header cannot carry; copy it again")
    return headers


def _seconds(name: str, text: str) -> float | None:
    """Seconds, as the Python exporters take them; the specification says milliseconds."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigError(f"{name} must be a number of seconds above 0, got {text!r}")
    return seconds


def _tls(reading: _Reading) -> Tls:
    found = {option: reading.find(option.upper()) for option in ("certificate", "client_certificate", "client_key")}
    return checked_tls({option: (name, path or None) for option, (name, path) in found.items()})


def _provider(name: str, text: str) -> str | None:
    if not text:
        return None
    if not entry_points(group=PROVIDERS_GROUP, name=text):
        raise ConfigError(f"{name} must name an entry point in the group {PROVIDERS_GROUP} of what is installed, got {text!r}")
    return text
