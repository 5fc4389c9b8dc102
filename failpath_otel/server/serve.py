"""Runs the server: one socket, one event loop, and an end within two seconds of a signal."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import threading
from collections.abc import Callable
from ipaddress import ip_address
from types import FrameType
from typing import TYPE_CHECKING, Final, NamedTuple

import uvicorn

from failpath_otel.errors import ConfigError
from failpath_otel.server.app import create_app
from failpath_otel.server.forward.own_address import is_own
from failpath_otel.server.forward.untraced import untraced
from failpath_otel.server.http.shutdown import Lifetime
from failpath_otel.server.settings import Settings

if TYPE_CHECKING:
    from failpath_otel.server.intake.grpc import GrpcReceiver

KEEP_ALIVE_SECONDS: Final = 120
"""Longer than senders keep idle connections (a Collector 90 s), so that they never write into one that just closed."""

GRACE_SECONDS: Final = 1
LAST_MOMENT_SECONDS: Final = 1.7
GC_THRESHOLD: Final = 50_000
_BACKLOG: Final = 512


class Address(NamedTuple):
    """Where a server can be called from this machine."""

    url: str
    grpc: str | None
    """Host and port for OTLP/gRPC, where it is taken."""


class Server(uvicorn.Server):
    """A uvicorn server whose streams end with it and whose exit code after a signal is 0."""

    def __init__(
        self, config: uvicorn.Config, lifetime: Lifetime, receiver: GrpcReceiver | None, announce: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._lifetime = lifetime
        self._receiver = receiver
        self._announce = announce
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen, then says so.

        Raises:
            ConfigError: The port for gRPC cannot be listened on.
        """
        self._loop = asyncio.get_running_loop()
        if self._receiver is not None:
            await self._receiver.bind()
        await super().startup(sockets=sockets)
        if self.started:
            self._announce()

    def stop(self) -> None:
        """Stops taking, and ends streams and what waits for senders. May be called from any thread or signal handler."""
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._lifetime.close)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends the server in order, the second at once."""
        if self.should_exit:
            _leave(128 + sig)
        # uvicorn would raise the signal again at its end, and the exit code would tell of a killed process.
        self.stop()
        timer = threading.Timer(LAST_MOMENT_SECONDS, _leave, (0,))
        timer.daemon = True
        timer.start()


def listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """A listening socket; port 0 takes a free one. ``option`` is what an error names.

    Raises:
        ConfigError: The address cannot be listened on.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host} is no address of this machine: {error}") from error
    # "localhost" is both; the address that most callers try is the older one.
    family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; "
            f"give another {option}, or {option} 0 for a free one"
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Where the server can be called from this machine."""
    host: str
    host, port = listener.getsockname()[:2]
    if not int(ip_address(host.partition("%")[0])):
        # Every address of this machine; loopback is one of them.
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def build(settings: Settings, listener: socket.socket, announce: Callable[[Address], None]) -> Server:
    """A server on a listening socket, not running yet.

    Raises:
        ConfigError: The database or the port for gRPC cannot be used, or events would go on to this server itself.
    """
    if settings.forward is not None and is_own(settings.forward.url, listener):
        raise ConfigError(f"--forward-to {settings.forward.url} is this server itself; give the URL of another one")
    receiver = _receiver(settings, listener)
    lifetime = Lifetime()
    config = uvicorn.Config(
        create_app(settings, lifetime, receiver),
        # One choice for all: what else is installed must not change how requests are read.
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="error",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )

    def announce_address() -> None:
        announce(Address(url_of(listener), None if receiver is None else receiver.address))

    return Server(config, lifetime, receiver, announce_address)


def serve(settings: Settings, announce: Callable[[Address], None]) -> None:
    """Serves until a signal comes. ``announce`` gets the address as soon as requests are answered.

    Raises:
        ConfigError: The address, the database or the server to which events go on cannot be used.
    """
    untraced()
    # Events by the thousand come and go without cycles; at Python's own threshold a quarter of the time goes into
    # looking for some.
    gc.set_threshold(GC_THRESHOLD, 20, 100)
    with listen(settings.host, settings.port) as listener:
        build(settings, listener, announce).run(sockets=[listener])


def _receiver(settings: Settings, listener: socket.socket) -> GrpcReceiver | None:
    if settings.grpc_port is None:
        return None
    # gRPC takes no socket of ours and hardly says why it cannot have a port, so that is found out before.
    listen(settings.host, settings.grpc_port, "--grpc-port").close()
    from failpath_otel.server.intake.grpc import GrpcReceiver

    return GrpcReceiver(listener.getsockname()[0], settings.grpc_port, settings.ingest_key)


def _leave(code: int) -> None:
    # Whatever still hangs was not acknowledged; what was acknowledged is on disk.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
