"""Whether a URL leads back to this server."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

_PORTS: Final = {"http": 80, "https": 443}


def is_own(url: str, listener: socket.socket) -> bool:
    """True where ``url`` is an address on which ``listener`` listens. What cannot be resolved now is not.

    A way back through a proxy or another host's address is not seen. It does no harm but that nothing is ever acknowledged.
    """
    parts = urlsplit(url)
    port = parts.port or _PORTS.get(parts.scheme)
    own_host, own_port = listener.getsockname()[:2]
    if port != own_port:
        return False
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    everywhere = not int(_address(own_host))
    return any(
        _address(address[0]) == _address(own_host) or (everywhere and _is_here(family, address))
        for family, _, _, _, address in found
    )


def _address(text: Any) -> Any:
    return ip_address(str(text).partition("%")[0])


def _is_here(family: int, address: Any) -> bool:
    """Whether an address belongs to this machine: what goes there has it as its source as well. Nothing is sent."""
    if _address(address[0]).is_loopback:
        return True
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(address)
        except OSError:
            return False
        return bool(_address(probe.getsockname()[0]) == _address(address[0]))
