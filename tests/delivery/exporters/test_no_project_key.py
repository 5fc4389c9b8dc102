"""Without a key nothing goes to a remote host."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from support.delivery import until
from support.http_sink import HttpSink

from failpath_otel import FailpathClient

Client = Callable[..., FailpathClient]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Whatever would be connected to; nothing is."""
    tried: list[object] = []

    def refuse(*args: object, **kwargs: object) -> None:
        tried.append(args)
        raise OSError("not in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tried


@pytest.mark.parametrize(
    "endpoint", [None, "https://example.com", "http://10.0.0.1", "http://0.0.0.0", "http://localhost.example.com"]
)
def test_nothing_is_sent_and_one_warning_says_why(
    client: Client, endpoint: str | None, no_network: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    failpath = client(endpoint=endpoint)
    for _ in range(3):
        assert failpath.run("checkout", "r1").step("pay", lambda: 3) == 3
    result = failpath.flush(1000)
    assert (result.sent, result.pending, result.dropped) == (0, 0, {"no_project_key": 6})
    assert no_network == []
    warnings = [message for message in caplog.messages if "no project key" in message]
    assert len(warnings) == 1
    for way_out in ("FAILPATH_PROJECT_KEY", "FAILPATH_DEV_ENDPOINT", "FAILPATH_ENABLED=false"):
        assert way_out in warnings[0]


def test_with_a_key_the_remote_host_is_tried(client: Client, no_network: list[object]) -> None:
    failpath = client(endpoint="https://example.com", project_key="fp_1")
    failpath.run("checkout", "r1").skip("pay")
    until(lambda: no_network)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "app.localhost", "127.8.9.1", "[::1]"])
def test_loopback_needs_no_key(client: Client, host: str, caplog: pytest.LogCaptureFixture) -> None:
    failpath = client(endpoint=f"http://{host}:9")
    failpath.run("checkout", "r1").skip("pay")
    assert failpath.stats().dropped == {}
    assert "no project key" not in caplog.text


def test_loopback_is_sent_to_without_a_key(client: Client, sink: HttpSink) -> None:
    failpath = client(endpoint=sink.url)
    failpath.run("checkout", "r1").skip("pay")
    assert failpath.flush().sent == 1


@pytest.mark.parametrize("exporter", ["console", "memory", "jsonl", "none"])
def test_exporters_that_stay_here_need_no_key(client: Client, exporter: str, caplog: pytest.LogCaptureFixture) -> None:
    failpath = client(exporter=exporter)
    failpath.run("checkout", "r1").skip("pay")
    assert failpath.flush().dropped == {}
    assert "no project key" not in caplog.text


def test_switched_off_there_is_no_warning(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    client(enabled=False)
    assert caplog.messages == []
