"""OTLP/HTTP byte by byte: chunked bodies, connections that are kept, requests that are refused before they are read."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.otlp_bodies import JSON, PROTOBUF, json_span, json_traces, step, traces
from support.served import Client


@dataclass
class Wire:
    """One connection, written and read as bytes."""

    connection: socket.socket
    stream: Any

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.connection.sendall(part)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers by lower-case name, and body."""
        line = self.stream.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        headers = {}
        while header := self.stream.readline().decode().strip():
            name, _, value = header.partition(": ")
            headers[name.lower()] = value
        return int(line.split()[1]), headers, self.stream.read(int(headers.get("content-length", 0)))

    def is_closed(self) -> bool:
        return self.stream.read(1) == b""


@pytest.fixture
def wire(api: Client) -> Iterator[Wire]:
    with _connected(api) as opened:
        yield opened


@contextmanager
def _connected(api: Client) -> Iterator[Wire]:
    where = urlsplit(api.url)
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection, connection.makefile("rb") as stream:
        yield Wire(connection, stream)


def _head(*headers: str, kind: str = PROTOBUF, method: str = "POST", path: str = "/v1/traces", version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", f"Content-Type: {kind}", *headers, "", ""]
    return "\r\n".join(lines).encode()


def _chunk(data: bytes, extension: str = "") -> bytes:
    return f"{len(data):x}{extension}\r\n".encode() + data + b"\r\n"


def _message(run_id: str, trace: int) -> bytes:
    return traces(step(run_id), trace_id=trace.to_bytes(16, "big")).SerializeToString()


def _is_stored(api: Client, run_id: str) -> bool:
    return api.get("/api/run", flow="checkout", run_id=run_id).status == 200


@pytest.mark.parametrize("coding", ["", "gzip"])
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
@pytest.mark.parametrize("size", [1, 7, 1_000_000])
def test_chunked_bodies_are_taken_however_they_are_cut(api, wire, coding, kind, size):
    run_id = f"chunked-{kind}-{coding}-{size}"
    trace = abs(hash((kind, coding, size))) + 1
    body = _message(run_id, trace)
    if kind == JSON:
        body = json.dumps(json_traces(json_span(step(run_id), traceId=f"{trace:032x}"))).encode()
    body = gzip.compress(body) if coding else body
    headers = ["Transfer-Encoding: chunked", *([f"Content-Encoding: {coding}"] if coding else [])]
    wire.send(_head(*headers, kind=kind), *(_chunk(body[at : at + size]) for at in range(0, len(body), size)), b"0\r\n\r\n")
    assert wire.answer()[0] == 200
    assert _is_stored(api, run_id)


def test_chunk_extensions_and_trailers_are_passed_over(api, wire):
    body = _message("extended", 2)
    trailer = b"0;last=yes\r\nX-Checksum: 1\r\n\r\n"
    wire.send(_head("transfer-encoding: Chunked", "Trailer: X-Checksum"), _chunk(body, ';name="value"'), trailer)
    assert wire.answer()[0] == 200
    assert _is_stored(api, "extended")


@pytest.mark.parametrize(("over", "status"), [(0, 200), (1, 413)])
def test_a_chunked_body_is_bounded_to_the_byte_without_a_length(wire, over, status):
    head = _message("bounded", 60)
    # The rest is one field that nobody knows, so that the body is a request of 4 MiB.
    rest = 4 * 1024 * 1024 - len(head) - 5 + over
    field = b"\x7a" + bytes([rest & 127 | 128, rest >> 7 & 127 | 128, rest >> 14 & 127 | 128, rest >> 21])
    body = head + field + bytes(rest)
    wire.send(_head("Transfer-Encoding: chunked"), *(_chunk(body[at : at + 500_000]) for at in range(0, len(body), 500_000)))
    wire.send(b"0\r\n\r\n")
    assert wire.answer()[0] == status


def test_a_broken_chunk_ends_the_connection_and_stores_nothing(api, wire):
    wire.send(_head("Transfer-Encoding: chunked"), b"zz\r\n" + _message("broken-chunk", 3) + b"\r\n0\r\n\r\n")
    assert wire.answer()[0] == 400
    wire.stream.read()  # to its end, so that it is closed
    assert not _is_stored(api, "broken-chunk")


def test_one_connection_serves_many_requests_also_after_refusals(api, wire):
    """What an exporter meets over the life of its connection: nothing that is refused costs it the connection."""
    refused = [
        (400, _head("Content-Length: 1"), b"\xff"),
        (415, _head("Content-Length: 3", kind="text/plain"), b"abc"),
        (415, _head("Content-Length: 3", "Content-Encoding: zstd"), b"abc"),
        (404, _head("Content-Length: 3", path="/v1/metrics"), b"abc"),
        (405, _head("Content-Length: 3", method="PATCH"), b"abc"),
        (413, _head("Content-Length: 4194305"), bytes(4_194_305)),
        (
            413,
            _head("Content-Length: 30000", "Content-Encoding: gzip"),
            gzip.compress(bytes(17_000_000), mtime=0).ljust(30_000, b"\0"),
        ),
    ]
    for number, (status, head, body) in enumerate(refused):
        wire.send(head, body)
        assert wire.answer()[0] == status
        good = _message(f"kept-{number}", 10 + number)
        wire.send(_head(f"Content-Length: {len(good)}"), good)
        code, headers, _ = wire.answer()
        assert (code, headers.get("connection")) == (200, None)
        assert _is_stored(api, f"kept-{number}")


def test_requests_that_come_before_the_answer_to_the_one_before_are_answered_in_order(api, wire):
    bodies = [_message(f"pipelined-{number}", 100 + number) for number in range(20)]
    bodies[7] = b"\xff"
    wire.send(b"".join(_head(f"Content-Length: {len(body)}") + body for body in bodies))
    assert [wire.answer()[0] for _ in bodies] == [400 if number == 7 else 200 for number in range(20)]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (_head("Content-Length: 67108864"), 413),
        (_head("Content-Length: 67108864", kind="text/plain"), 415),
        (_head("Content-Length: 67108864", path="/v1/metrics"), 404),
    ],
)
def test_a_sender_that_writes_all_before_it_reads_still_gets_the_answer(api, wire, head, status):
    # A connection that is cut while it writes looks to it like a fault of the network: it would send the same for ever.
    wire.send(head, *[bytes(1024 * 1024)] * 64)
    assert wire.answer()[0] == status
    wire.send(_head("Content-Length: 0"))
    assert wire.answer()[0] == 200


def test_a_sender_that_asks_first_is_told_to_go_on(api, wire):
    body = _message("expected", 30)
    wire.send(_head(f"Content-Length: {len(body)}", "Expect: 100-continue"))
    assert wire.answer()[0] == 100
    wire.send(body)
    assert wire.answer()[0] == 200
    assert _is_stored(api, "expected")


def test_a_sender_that_asks_first_with_too_much_is_refused_before_it_sends(wire):
    wire.send(_head("Content-Length: 67108864", "Expect: 100-continue"))
    assert wire.answer()[0] == 413


@pytest.mark.parametrize("headers", [["Connection: close"], []])
def test_a_connection_is_closed_where_the_sender_wants_it(api, wire, headers):
    body = _message("closed", 40)
    wire.send(_head(f"Content-Length: {len(body)}", *headers, version="1.1" if headers else "1.0"), body)
    assert wire.answer()[0] == 200
    assert wire.is_closed()


@pytest.mark.parametrize("length", ["abc", "-1", "1e3", "0x10"])
def test_a_length_that_is_none_is_refused(wire, length):
    wire.send(_head(f"Content-Length: {length}"))
    assert wire.answer()[0] == 400


def test_a_body_that_ends_too_soon_stores_nothing(api):
    body = _message("cut-short", 50)
    with _connected(api) as wire:
        wire.send(_head(f"Content-Length: {len(body) + 10}"), body)
    with _connected(api) as wire:
        wire.send(_head("Transfer-Encoding: chunked"), _chunk(body))
    for _ in range(3):  # each a turn of the server's loop after the ends of these connections
        assert api.get("/healthz").status == 200
    assert not _is_stored(api, "cut-short")


def test_many_connections_at_once_are_all_served(api):
    answers: list[int] = []

    def send(sender: int) -> None:
        with _connected(api) as wire:
            for number in range(10):
                body = _message(f"sender-{sender}", 1000 + sender * 100 + number)
                wire.send(_head("Transfer-Encoding: chunked"), _chunk(body), b"0\r\n\r\n")
                answers.append(wire.answer()[0])

    senders = [threading.Thread(target=send, args=(number,)) for number in range(16)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(timeout=60)
    assert answers == [200] * 160
    for sender in range(16):
        assert len(api.get("/api/run/events", flow="checkout", run_id=f"sender-{sender}").json["events"]) == 10
