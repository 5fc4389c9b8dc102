"""A real HTTP server on loopback that takes events, and misbehaves as a test tells it to."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from support.delivery import event as an_event
from support.ports import free_port

from failpath_otel.exporters import HttpExporter


@dataclass
class Request:
    """One request as it came over the wire."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def events(self) -> list[dict[str, Any]]:
        body = gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body
        found: list[dict[str, Any]] = json.loads(body)["events"]
        return found


Answer = Callable[[Request, socket.socket], None]
"""Writes whatever it likes to the socket; returning keeps the connection, raising ends it."""


@dataclass
class HttpSink:
    """Counts what arrives. ``answer`` says how to react; by default as the server does, idempotent by event id."""

    port: int = field(default_factory=free_port)  # which it keeps, so that it can go away and come back
    requests: list[Request] = field(default_factory=list)
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    arrivals: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    answer: Answer | None = None
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}" if self.tls is None else f"https://localhost:{self.port}"

    @property
    def events(self) -> list[dict[str, Any]]:
        return list(self.stored.values())

    @property
    def open_connections(self) -> int:
        """How many connections are open at this moment."""
        return len(self._open)

    def start(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        """From now on connections are refused, and open ones are cut."""
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait_for(self, done: Callable[[HttpSink], bool], timeout: float = 20) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: done(self), timeout), f"not within {timeout} s: {self}"

    def store(self, request: Request) -> bytes:
        """Takes the events; the body of the answer."""
        new = 0
        events = request.events
        for event in events:
            self.arrivals[event["eventId"]] += 1
            new += event["eventId"] not in self.stored
            self.stored.setdefault(event["eventId"], event)
        return json.dumps({"accepted": new, "duplicates": len(events) - new, "rejected": []}).encode()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        if self.tls is not None:
            self._open.discard(connection)
            try:
                connection = self.tls.wrap_socket(connection, server_side=True)
            except OSError:  # a handshake that fails is what a test wants
                return
            self._open.add(connection)
        stream = connection.makefile("rb")
        with suppress(OSError, ValueError, EOFError), connection, stream:
            while (request := _read(stream, number)) is not None:
                with self._changed:
                    self.requests.append(request)
                    self._changed.notify_all()
                if self.answer is None:
                    body = self.store(request)
                    connection.sendall(reply(202, body))
                else:
                    self.answer(request, connection)
                with self._changed:
                    self._changed.notify_all()
        self._open.discard(connection)


def _read(stream: Any, number: int) -> Request | None:
    line = stream.readline().decode().strip()
    if not line:
        return None
    headers: dict[str, str] = {}
    while header := stream.readline().decode().strip():
        name, _, value = header.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Request(line, headers, stream.read(int(headers.get("content-length", "0"))), number)


def reply(status: int, body: bytes = b"", **headers: str) -> bytes:
    """An HTTP answer with a length, so that the connection may be kept."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def always(status: int, body: bytes = b"", **headers: str) -> Answer:
    """Answers every request the same."""
    return lambda request, connection: connection.sendall(reply(status, body, **headers))


def in_turn(sink: HttpSink, *answers: Answer | None) -> Answer:
    """One answer after the other, then as the server does; ``None`` stands for that too."""
    left = list(answers)

    def answer(request: Request, connection: socket.socket) -> None:
        chosen = left.pop(0) if left else None
        if chosen is None:
            connection.sendall(reply(202, sink.store(request)))
        else:
            chosen(request, connection)

    return answer


def reset(request: Request, connection: socket.socket) -> None:
    """Ends the connection with a RST instead of an answer."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RD)
    connection.close()
    raise OSError


def hang(sink: HttpSink) -> Answer:
    """Does not answer before ``sink.released``."""

    def answer(request: Request, connection: socket.socket) -> None:
        sink.released.wait(60)
        raise OSError

    return answer


@contextmanager
def http_sink() -> Iterator[HttpSink]:
    """A sink that listens, until the end of the block."""
    sink = HttpSink()
    sink.start()
    try:
        yield sink
    finally:
        sink.released.set()
        sink.stop()


def cut(request: Request, connection: socket.socket) -> None:
    """Cuts the connection without an answer."""
    raise OSError


def send(sink: HttpSink, *numbers: int, key: str | None = None, timeout_millis: int = 10_000, **fields: Any) -> None:
    """One export on a connection of its own."""
    exporter = HttpExporter(sink.url, key)
    try:
        exporter.export([an_event(number, **fields) for number in numbers or (1,)], timeout_millis=timeout_millis)
    finally:
        exporter.close()
