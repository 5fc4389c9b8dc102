"""Bridges for tests: a server in a thread that sends on to a sink, and answers with which the sink refuses events."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from support.http_sink import Answer, HttpSink, Request, reply
from support.served import Client, in_thread

from failpath_otel.cli.forwarding import destination_of
from failpath_otel.server.settings import Settings

T = TypeVar("T")


@contextmanager
def bridge_to(url: str, db: Path | None, key: str | None = None, **files: str) -> Iterator[Client]:
    """A bridge in a thread; without ``db`` it keeps nothing. ``files`` are certificates."""
    settings = Settings(None if db is None else str(db), port=0, forward=destination_of(url, key, **files))
    with in_thread(settings) as client:
        yield client


def forward_state(bridge: Client) -> dict[str, Any]:
    """How it goes on, as the bridge tells."""
    found: dict[str, Any] = bridge.get("/api/intake").json["forward"]
    return found


def naming(sink: HttpSink, *bad_runs: str) -> Answer:
    """Takes a batch but for the events of these runs, which it names."""

    def answer(request: Request, connection: socket.socket) -> None:
        bad = [event for event in request.events if event["runId"] in bad_runs]
        with_all = json.loads(sink.store(request))
        for event in bad:
            del sink.stored[event["eventId"]]
        rejected = [{"eventId": event["eventId"], "reason": f"no run {event['runId']}"} for event in bad]
        body = {**with_all, "accepted": with_all["accepted"] - len(bad), "rejected": rejected}
        connection.sendall(reply(202, json.dumps(body).encode()))

    return answer


def refusing(sink: HttpSink, status: int, *bad_runs: str) -> Answer:
    """Refuses each batch with an event of these runs as a whole."""

    def answer(request: Request, connection: socket.socket) -> None:
        bad = sorted({event["runId"] for event in request.events if event["runId"] in bad_runs})
        body = json.dumps({"detail": f"cannot read {bad}"}).encode() if bad else sink.store(request)
        connection.sendall(reply(status if bad else 202, body))

    return answer


def gated(gate: threading.Event, then: Answer) -> Answer:
    """Waits for the gate before each answer, so that what comes meanwhile goes out together."""

    def answer(request: Request, connection: socket.socket) -> None:
        assert gate.wait(20)
        then(request, connection)

    return answer


def at_once(work: Sequence[Callable[[], T]]) -> list[T]:
    """What each gives, all called at the same time."""
    found: dict[int, T] = {}

    def run(number: int) -> None:
        found[number] = work[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return [found[number] for number in range(len(work))]
