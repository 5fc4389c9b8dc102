"""HttpExporter on connections that are refused, break, or answer without end."""

from __future__ import annotations

import gzip
import socket
import time
from typing import Any

import pytest
from support.http_sink import Answer, HttpSink, Request, always, cut, hang, reply, reset, send

from failpath_otel.errors import RetryableError
from failpath_otel.exporters import HttpExporter
from failpath_otel.exporters import deadline as deadline_module


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


def drip(piece: bytes, head: bytes = b"") -> Answer:
    def answer(request: Request, connection: socket.socket) -> None:
        connection.sendall(head)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            connection.sendall(piece)
            time.sleep(0.02)
        raise OSError

    return answer


@pytest.mark.parametrize("name", ["hang", "drip in the status line", "drip of headers", "endless interim answers"])
def test_an_answer_that_does_not_end_stops_at_the_timeout(sink: HttpSink, name: str) -> None:
    """Each read is fast enough; all together they are not."""
    sink.answer = {
        "hang": hang(sink),
        "drip in the status line": drip(b"H"),
        "drip of headers": drip(b"a", b"HTTP/1.1 202 X\r\nX-Slow: "),
        "endless interim answers": drip(b"HTTP/1.1 100 Continue\r\n\r\n"),
    }[name]
    started = time.monotonic()
    with pytest.raises(RetryableError):
        send(sink, timeout_millis=300)
    assert 0.2 < time.monotonic() - started < 2


LONG_BODY = b"HTTP/1.1 %d X\r\nContent-Length: 100000\r\n\r\n"


def test_a_body_that_does_not_end_does_not_undo_the_status(sink: HttpSink) -> None:
    sink.answer = drip(b"x", LONG_BODY % 202)
    started = time.monotonic()
    send(sink, timeout_millis=300)
    sink.answer = drip(b"x", LONG_BODY % 503)
    with pytest.raises(RetryableError, match="answered 503"):
        send(sink, timeout_millis=300)
    assert time.monotonic() - started < 3


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
def test_a_huge_answer_is_read_no_further_than_the_bound(sink: HttpSink, piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the length of a chunk is itself without end."""
    taken = 0

    class Counting(deadline_module._Reader):
        def readinto(self, buffer: Any) -> int | None:
            nonlocal taken
            count = super().readinto(buffer)
            taken += count or 0
            return count

    def answer(request: Request, connection: socket.socket) -> None:
        connection.sendall(piece)
        for _ in range(500):
            connection.sendall(b"0" * 65536)
        raise OSError

    monkeypatch.setattr(deadline_module, "_Reader", Counting)
    sink.answer = answer
    send(sink, timeout_millis=20_000)
    assert taken <= 2 * deadline_module.MAX_ANSWER_BYTES


def test_interim_answers_without_end_stop_at_the_bound(sink: HttpSink) -> None:
    """Also where no timeout ends them."""

    def answer(request: Request, connection: socket.socket) -> None:
        while True:
            connection.sendall(b"HTTP/1.1 100 Continue\r\nX-Filler: " + b"x" * 60_000 + b"\r\n\r\n")

    sink.answer = answer
    with pytest.raises(RetryableError, match="longer than"):
        send(sink, timeout_millis=0)


def test_no_time_at_all_is_a_passing_trouble(sink: HttpSink) -> None:
    exporter = HttpExporter(sink.url)
    with pytest.raises(RetryableError):
        exporter._post(b"{}", time.monotonic() - 1)
    exporter.close()
    assert sink.requests == []


def test_without_a_timeout_a_slow_answer_is_waited_for(sink: HttpSink) -> None:
    def answer(request: Request, connection: socket.socket) -> None:
        time.sleep(0.3)
        connection.sendall(reply(202, sink.store(request)))

    sink.answer = answer
    send(sink, timeout_millis=0)
    assert len(sink.stored) == 1
