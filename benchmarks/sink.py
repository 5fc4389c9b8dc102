"""A destination on loopback: answers every POST at once and counts afterwards what it was sent.

Run as a process of its own, so that the benchmark's process has its interpreter to itself. Prints its port, then serves
until its standard input closes. ``GET /counts`` tells how many events and spans came; what came is counted after the
answer, so that the sender does not wait for it. With ``--hang`` it takes requests and never answers.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import sys
import threading
from collections import Counter

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_counts: Counter[str] = Counter()
_lock = threading.Lock()


def _answer(status: str, kind: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


_ACCEPTED = _answer("202 Accepted", "application/json", b'{"accepted":0,"duplicates":0,"rejected":[]}')
_TAKEN = _answer("200 OK", "application/x-protobuf", b"")


def _count(path: str, compressed: bool, body: bytes) -> None:
    raw = gzip.decompress(body) if compressed else body
    with _lock:
        _counts["requests"] += 1
        _counts["bytes"] += len(body)
        if path == "/v1/traces":
            request = ExportTraceServiceRequest.FromString(raw)
            _counts["spans"] += sum(len(scope.spans) for item in request.resource_spans for scope in item.scope_spans)
        elif path == "/v1/logs":
            _counts["events"] += raw.count(b"failpath.event.id")
        else:
            _counts["events"] += raw.count(b'"eventId":')


def _serve(connection: socket.socket, hang: bool) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream = connection.makefile("rb", buffering=256 * 1024)
    while line := stream.readline():
        method, path, _ = line.decode().split(" ", 2)
        headers = {}
        while header := stream.readline().strip():
            name, _, value = header.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", 0)))
        if hang:
            continue
        if method == "GET":
            with _lock:
                connection.sendall(_answer("200 OK", "application/json", json.dumps(_counts).encode()))
            continue
        connection.sendall(_ACCEPTED if path == "/v1/events" else _TAKEN)
        _count(path, headers.get("content-encoding") == "gzip", body)


def main() -> None:
    hang = "--hang" in sys.argv
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(listener.getsockname()[1], flush=True)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection, hang), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
