"""Bodies that do not arrive in time."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest

from failpath_otel.server.http import body


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        ("/v1/events", "application/json", 408),
        ("/v1/traces", "application/x-protobuf", 503),
        ("/v1/logs", "application/json", 503),
    ],
)
def test_a_sender_that_stalls_is_told_to_send_again_in_the_way_that_it_understands(api, path, kind, status, monkeypatch):
    monkeypatch.setattr(body, "READ_TIMEOUT_SECONDS", 0.1)
    where = urlsplit(api.url)
    with socket.create_connection((where.hostname, where.port), timeout=10) as connection, connection.makefile("rb") as stream:
        head = f"POST {path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: {kind}\r\nContent-Length: 100\r\n\r\n"
        connection.sendall(head.encode() + b"half of it")
        assert stream.readline().split()[1] == str(status).encode()
        headers = {}
        while line := stream.readline().decode().strip():
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
    assert headers.get("retry-after") == ("1" if status == 503 else None)
