"""HttpExporter on connections that are refused, break, or answer without end."""

from __future__ import annotations

import gzip
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from support.delivery import sooner_than, until
from support.http_sink import Answer, HttpSink, Request, always, cut, hang, reply, reset, send

from failpath_otel.errors import RetryableError
from failpath_otel.exporters.deadline import MAX_ANSWER_BYTES
from failpath_otel.exporters.posting import Poster


def test_a_refused_connection_is_tried_again(sink: HttpSink) -> None:
    sink.stop()
    with pytest.raises(RetryableError, match="refused"):
        send(sink)


def garbage(request: Request, connection: socket.socket) -> None:
    connection.sendall(b"\x00\xffnonsense\r\n\r\n" * 10)
    raise OSError


def half_a_head(request: Request, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 20")
    raise OSError


@pytest.mark.parametrize("answer", [reset, garbage, cut, half_a_head])
def test_a_broken_answer_is_tried_again(sink: HttpSink, answer: Answer) -> None:
    sink.answer = answer
    with pytest.raises(RetryableError, match="cannot be reached"):
        send(sink)


def drip(sink: HttpSink, piece: bytes, head: bytes = b"") -> Answer:
    """Sends a piece, and another, for at least a minute."""

    def answer(request: Request, connection: socket.socket) -> None:
        connection.sendall(head)
        for _ in range(3000):
            connection.sendall(piece)
            if sink.released.wait(0.02):
                break
        raise OSError

    return answer


@pytest.mark.parametrize("name", ["hang", "drip in the status line", "drip of headers", "endless interim answers"])
def test_an_answer_that_does_not_end_stops_at_the_timeout(sink: HttpSink, name: str) -> None:
    """Each read is fast enough; all together they are not."""
    sink.answer = {
        "hang": hang(sink),
        "drip in the status line": drip(sink, b"H"),
        "drip of headers": drip(sink, b"a", b"HTTP/1.1 202 X\r\nX-Slow: "),
        "endless interim answers": drip(sink, b"HTTP/1.1 100 Continue\r\n\r\n"),
    }[name]
    started = time.monotonic()
    with sooner_than(30), pytest.raises(RetryableError):
        send(sink, timeout_millis=300)
    assert time.monotonic() - started > 0.2


LONG_BODY = b"HTTP/1.1 %d X\r\nContent-Length: 100000\r\n\r\n"


def test_a_body_that_does_not_end_does_not_undo_the_status(sink: HttpSink) -> None:
    sink.answer = drip(sink, b"x", LONG_BODY % 202)
    with sooner_than(30):
        send(sink, timeout_millis=1000)
        sink.answer = drip(sink, b"x", LONG_BODY % 503)
        with pytest.raises(RetryableError, match="answered 503"):
            send(sink, timeout_millis=1000)


def test_a_body_that_breaks_off_does_not_undo_the_status(sink: HttpSink) -> None:
    def answer(request: Request, connection: socket.socket) -> None:
        connection.sendall(LONG_BODY % 202 + b"abc")
        raise OSError

    sink.answer = answer
    send(sink)


def test_a_body_in_an_encoding_nobody_asked_for_does_not_undo_the_status(sink: HttpSink) -> None:
    """Nor is it inflated, which could be a bomb."""
    sink.answer = always(202, gzip.compress(b"0" * 10_000_000), Content_Encoding="gzip")
    send(sink)
    sink.answer = always(202, b"no gzip at all", Content_Encoding="gzip")
    send(sink)
    assert sink.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "piece", [b"HTTP/1.1 200 X\r\nContent-Length: 99999999999\r\n\r\n", b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"]
)
def test_a_huge_answer_is_read_no_further_than_the_bound(sink: HttpSink, piece: bytes) -> None:
    """Also where the length of a chunk is itself without end. What is on its way between the two is not read any more."""
    given = 0

    def answer(request: Request, connection: socket.socket) -> None:
        nonlocal given
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        connection.sendall(piece)
        with suppress(OSError):
            while given < 200 * MAX_ANSWER_BYTES:
                given += connection.send(b"0" * 65536)
        raise OSError

    sink.answer = answer
    send(sink, timeout_millis=60_000)
    until(lambda: not sink.open_connections)
    assert given <= 8 * MAX_ANSWER_BYTES


def test_interim_answers_without_end_stop_at_the_bound(sink: HttpSink) -> None:
    """Also where no timeout ends them."""

    def answer(request: Request, connection: socket.socket) -> None:
        while True:
            connection.sendall(b"HTTP/1.1 100 Continue\r\nX-Filler: " + b"x" * 60_000 + b"\r\n\r\n")

    sink.answer = answer
    with pytest.raises(RetryableError, match="longer than"):
        send(sink, timeout_millis=0)


def test_no_time_at_all_is_a_passing_trouble(sink: HttpSink) -> None:
    poster = Poster(sink.url, {})
    with pytest.raises(RetryableError, match="no time was left"):
        poster.post(b"{}", {}, time.monotonic() - 1)
    poster.close()
    assert sink.requests == []


def test_without_a_timeout_a_slow_answer_is_waited_for(sink: HttpSink) -> None:
    def answer(request: Request, connection: socket.socket) -> None:
        sink.released.wait(60)
        connection.sendall(reply(202, sink.store(request)))

    sink.answer = answer
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, sink, timeout_millis=0)
        sink.wait_for(lambda sink: bool(sink.requests))
        assert not sending.done()
        sink.released.set()
        sending.result(60)
    assert len(sink.stored) == 1
