"""A Lambda function under AWS's own runtime client, which takes events from an API that the test stands for."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from support.delivery import ScriptedExporter
from support.http_sink import HttpSink, hang
from support.processes import SECONDS, arrived, once, settings

from failpath_otel import ConfigError, FailpathClient, notices
from failpath_otel.integrations import aws_lambda
from failpath_otel.testing import RecordingClient

FUNCTION = """
from failpath_otel import FailpathClient
from failpath_otel.integrations import aws_lambda

failpath = FailpathClient(flows=False)
look_up = failpath.step("look-up")(lambda: None)


@aws_lambda.handler(failpath, flow="photo-upload", run_id=lambda event: event.get("id"), step_key="take-photo")
def handler(event, context):
    look_up()
    if event.get("how") == "raises":
        raise ValueError("broken")
    return {"statusCode": event.get("status", 200)}
"""


@dataclass
class Platform:
    """Lambda's Runtime API: gives out one event after the other, and takes the answers. Nothing runs in between."""

    url: str
    process: Any = None
    events: SimpleQueue[Any] = field(default_factory=SimpleQueue)
    answers: SimpleQueue[Any] = field(default_factory=SimpleQueue)

    def invoke(self, event: Any, seconds: float = SECONDS) -> Any:
        """What became of one invocation, and how many seconds were left."""
        deadline = time.time() + seconds
        self.events.put((event, int(deadline * 1000)))
        answer = self.answers.get(timeout=SECONDS)
        return *answer, deadline - time.time()


@contextmanager
def platform(folder: Path, sink: HttpSink) -> Iterator[Platform]:
    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            event, deadline = here.events.get()
            body = json.dumps(event).encode()
            self.send_response(200)
            self.send_header("Lambda-Runtime-Aws-Request-Id", f"request-of-{event.get('name', 'nobody')}")
            self.send_header("Lambda-Runtime-Deadline-Ms", str(deadline))
            self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-central-1:1:function:photo")
            # The client reads the rest without a look at whether it is there.
            self.send_header("Lambda-Runtime-Trace-Id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=1")
            self.send_header("Lambda-Runtime-Client-Context", "{}")
            self.send_header("Lambda-Runtime-Cognito-Identity", "{}")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            body = b""
            if "content-length" in self.headers:
                body = self.rfile.read(int(self.headers["content-length"]))
            else:  # in chunks
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            here.answers.put((self.path.rpartition("/")[2], json.loads(body)))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
            pass

    (folder / "photo.py").write_text(FUNCTION)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.daemon_threads = True
    here = Platform(f"127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    env = settings(sink, {"AWS_LAMBDA_RUNTIME_API": here.url, "AWS_LAMBDA_FUNCTION_NAME": "photo", "_HANDLER": "photo.handler"})
    here.process = subprocess.Popen(
        [sys.executable, "-m", "awslambdaric", "photo.handler"],
        cwd=folder,
        env={**os.environ, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield here
    finally:
        here.process.kill()
        here.process.wait(SECONDS)
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_an_invocation_reported_has_arrived_when_it_is_answered(
    sink: HttpSink, tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs("awslambdaric")
    looked = [("look-up", "running"), ("look-up", "success")]
    with platform(tmp_path, sink) as function:
        for event, kind, outcome in (
            ({"id": "good"}, "response", "success"),
            ({"id": "away", "status": 503}, "response", "error"),
            ({"id": "not-found", "status": 404}, "response", "success"),
            ({"id": "broken", "how": "raises"}, "error", "error"),
            ({"name": "anna"}, "response", "success"),
        ):
            assert function.invoke(event)[0] == kind
            run_id = event.get("id", "request-of-anna")
            assert arrived(sink)[run_id] == once(("take-photo", "running"), ("take-photo", outcome), *looked), event
        names = {event["error"]["name"] for event in sink.events if event.get("error")}
    assert names == {"HTTP 503", "ValueError"}


def test_an_endpoint_that_hangs_costs_no_more_than_the_time_left_and_what_waits_comes_with_the_next_invocation(
    sink: HttpSink, tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs("awslambdaric")
    with platform(tmp_path, sink) as function:
        function.invoke({"id": "warm"})
        sink.answer = hang(sink)
        kind, _, left = function.invoke({"id": "first"}, seconds=10)
        assert kind == "response"
        assert left > 0
        sink.answer = None
        sink.released.set()
        function.invoke({"id": "second"})
        sink.wait_for(lambda _: {"first", "second"} <= set(arrived(sink)), 60)


class Context:
    """As much of Lambda's context as is looked at."""

    aws_request_id = "of-the-platform"

    def __init__(self, left: int = 60_000) -> None:
        self.left = left

    def get_remaining_time_in_millis(self) -> int:
        return self.left


@pytest.fixture
def client() -> Iterator[RecordingClient]:
    notices.forget()
    with RecordingClient(flows=False) as client:
        yield client


CALLER = {"Traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "Baggage": "failpath.flow.slug=order,failpath.run.id=theirs"}
HEADERS = {"X-Request-Id": "req_1"}


@pytest.mark.parametrize(
    ("event", "flow", "run_id"),
    [
        ({"httpMethod": "POST", "path": "/checkout", "headers": HEADERS}, "checkout", "req_1"),
        ({"httpMethod": "POST", "path": "/checkout", "multiValueHeaders": {"X-Request-Id": ["req_1"]}}, "checkout", "req_1"),
        ({"requestContext": {"http": {"method": "POST", "path": "/checkout"}}, "headers": HEADERS}, "checkout", "req_1"),
        ({"httpMethod": "POST", "path": "/checkout", "headers": None}, "checkout", "of-the-platform"),
        ({"httpMethod": "GET", "path": "/checkout", "headers": CALLER}, "order", "theirs"),
        ({"Records": [{}]}, "records", "of-the-platform"),
        (["no", "mapping"], "records", "of-the-platform"),
    ],
)
def test_the_run_is_chosen_by_the_request_that_the_event_is(
    client: RecordingClient, event: Any, flow: str, run_id: str
) -> None:
    @aws_lambda.handler(client, flow={"POST /checkout": "checkout", "*": "records"})
    def handler(event: Any, context: Any) -> int:
        client.step("look-up")(lambda: None)()
        return 7

    assert handler(event, Context()) == 7
    client.assert_story(flow, "look-up:success", run_id)


def test_exceptions_pass_as_the_same_object_and_a_context_that_tells_no_time_is_taken(client: RecordingClient) -> None:
    error = ValueError("broken")

    @aws_lambda.handler(client, flow="checkout", step_key="take-photo")
    def handler(event: Any, context: Any) -> None:
        raise error

    with pytest.raises(ValueError, match="broken") as raised:
        handler({}, SimpleNamespace())
    assert raised.value is error
    client.assert_story("checkout", "take-photo:error(ValueError)")


def test_a_handler_of_asyncio_has_its_run_and_outcome_and_what_it_said_is_sent_when_it_returns() -> None:
    exporter = ScriptedExporter()
    with FailpathClient(exporter=exporter, flows=False) as client:

        @aws_lambda.handler(client, flow="checkout", run_id=lambda event: event["id"], step_key="take-photo")
        async def handler(event: Any, context: Any) -> dict[str, int]:
            await asyncio.sleep(0)
            client.step("look-up")(lambda: None)()
            if event["id"] == "raises":
                raise ValueError("broken")
            return {"statusCode": event["status"]}

        async def main() -> None:
            for event in ({"id": "good", "status": 200}, {"id": "away", "status": 503}):
                await handler(event, Context())
                assert client.stats().pending == 0
            with pytest.raises(ValueError, match="broken"):
                await handler({"id": "raises"}, Context())
            assert client.stats().pending == 0

        asyncio.run(main())
    told = [
        (one.run_id, one.step_key, one.error and one.error.name)
        for batch in exporter.batches
        for one in batch
        if one.is_outcome
    ]
    assert told == [
        ("good", "look-up", None), ("good", "take-photo", None),
        ("away", "look-up", None), ("away", "take-photo", "HTTP 503"),
        ("raises", "look-up", None), ("raises", "take-photo", "ValueError"),
    ]  # fmt: skip


class Untold(Context):
    def get_remaining_time_in_millis(self) -> int:
        raise NotImplementedError


@pytest.mark.parametrize("context", [Untold(), MagicMock(), None], ids=["raises", "a mock", "none"])
def test_a_context_that_does_not_tell_its_time_costs_neither_answer_nor_outcome(client: RecordingClient, context: Any) -> None:
    @aws_lambda.handler(client, flow="checkout", step_key="take-photo")
    def handler(event: Any, context: Any) -> dict[str, str]:
        return {"statusCode": "503"}  # as API Gateway takes it too

    assert handler({}, context) == {"statusCode": "503"}
    client.assert_story("checkout", "take-photo:error(HTTP 503)")


@pytest.mark.parametrize(("left", "expected"), [(60_000, 1500), (1000, 900), (100, 0), (0, 0)])
def test_the_flush_takes_what_is_left_less_the_margin_and_no_more_than_its_bound(
    monkeypatch: pytest.MonkeyPatch, client: RecordingClient, left: int, expected: int
) -> None:
    asked: list[int] = []
    flush = client.flush

    def watched(timeout_millis: int = 0) -> Any:
        asked.append(timeout_millis)
        return flush(timeout_millis)

    monkeypatch.setattr(client, "flush", watched)
    aws_lambda.handler(client)(lambda event, context: None)({}, Context(left))
    assert asked == [expected]


def test_arguments_that_cannot_be_used_are_refused() -> None:
    with FailpathClient(enabled=False) as client:
        for options in ({"flush_timeout_millis": -1}, {"margin_millis": 0.5}, {"step_key": 7}):
            with pytest.raises(ConfigError, match=next(iter(options))):
                aws_lambda.handler(client, **options)  # type: ignore[arg-type]
