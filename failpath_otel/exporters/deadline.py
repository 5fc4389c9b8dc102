"""DeadlineAdapter: answers that come drop by drop, or without end, stop at a deadline and at a bound."""

from __future__ import annotations

import http.client
import inspect
import io
import socket
from contextvars import ContextVar
from typing import Any, Final

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager

from failpath_otel import clock

MAX_ANSWER_BYTES: Final = 1024 * 1024

deadline: Final[ContextVar[float | None]] = ContextVar("failpath-answer-deadline", default=None)
"""Until when (monotonic seconds) the answers of this context may take; ``None`` sets no limit."""


class DeadlineAdapter(HTTPAdapter):
    """An adapter for `requests` that holds `deadline` and a bound on the bytes of one answer, headers included.

    The timeout of `requests` holds for each read alone, so that a server which drips may hold its caller for hours.
    """

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Makes the pools, as ever, but of connections that keep to the deadline."""
        super().init_poolmanager(*args, **kwargs)
        _arm(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """The same for connections by way of a proxy."""
        return _arm(super().proxy_manager_for(*args, **kwargs))


class _Reader(io.RawIOBase):
    """Reads a socket within what is left of the time and of the bytes."""

    def __init__(self, sock: socket.socket, raw: Any) -> None:
        self._sock = sock
        self._raw = raw
        self._until = deadline.get()
        self._left = MAX_ANSWER_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._until is not None:
            remaining = self._until - clock.monotonic()
            if remaining <= 0:
                raise TimeoutError("the answer took too long")
            self._sock.settimeout(remaining)
        count: int | None = self._raw.readinto(buffer)
        self._left -= count or 0
        if self._left < 0:
            raise OSError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp: Any = io.BufferedReader(_Reader(sock, self.fp.detach()))


class _Connection(HTTPConnection):
    response_class = _Answer


class _SecureConnection(HTTPSConnection):
    response_class = _Answer


class _Pool(HTTPConnectionPool):
    ConnectionCls: Any = _Connection

    def urlopen(self, *args: Any, **kwargs: Any) -> Any:
        """As ever, past what tracers such as ddtrace wrap around it."""
        return inspect.unwrap(HTTPConnectionPool.urlopen)(self, *args, **kwargs)


class _SecurePool(_Pool, HTTPSConnectionPool):
    ConnectionCls: Any = _SecureConnection


def _arm(manager: PoolManager) -> PoolManager:
    pools: Any = {"http": _Pool, "https": _SecurePool}
    manager.pool_classes_by_scheme = pools
    return manager
