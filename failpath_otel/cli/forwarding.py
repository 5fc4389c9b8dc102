"""``--forward-to``: where the events of ``failpath-otel serve`` go on to, and with which key."""

from __future__ import annotations

from collections.abc import Mapping

from failpath_otel.endpoint import checked_endpoint, checked_project_key, checked_tls, is_loopback
from failpath_otel.errors import ConfigError
from failpath_otel.exporters import HttpExporter
from failpath_otel.server.settings import Destination
from failpath_otel.version import VERSION


def destination_of(
    url: str,
    key: str | None,
    certificate: str | None = None,
    client_certificate: str | None = None,
    client_key: str | None = None,
) -> Destination:
    """The server at ``url``, called as a client calls it.

    Raises:
        ConfigError: The URL, the key or a certificate cannot be used, or the key is missing for a server that is not on this
            machine.
    """
    endpoint = checked_endpoint("--forward-to", url)
    project_key = checked_project_key("--forward-key", key or "")
    if project_key is None and not is_loopback(endpoint):
        raise ConfigError(
            f"--forward-to {endpoint} is not on this machine, which takes the project key: --forward-key (FAILPATH_PROJECT_KEY)"
        )
    given = {"certificate": certificate, "client_certificate": client_certificate, "client_key": client_key}
    tls = checked_tls({name: (f"--forward-{name.replace('_', '-')}", path or None) for name, path in given.items()})
    files = {"certificate": tls.certificate, "client_certificate": tls.client_certificate, "client_key": tls.client_key}
    agent = f"failpath-otel-bridge/{VERSION}"
    return Destination(endpoint, lambda: HttpExporter(endpoint, project_key, user_agent=agent, **files))


def useless_without_store(given: Mapping[str, object]) -> None:
    """Refuses options that say how to keep runs where none are kept.

    Raises:
        ConfigError: One of them was given, as an option or in the environment.
    """
    useless = [option for option, value in given.items() if value]
    if useless:
        raise ConfigError(
            f"--no-store keeps nothing, so {', '.join(useless)} cannot be given beside it, nor in the environment"
        )
