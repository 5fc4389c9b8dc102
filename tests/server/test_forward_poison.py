"""The bridge before a server that never takes one event: the others go on, and its sender is told to let go of it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.bridges import bridge_to, forward_state
from support.http_sink import Answer, HttpSink, Request, always, cut, reply, reset
from support.served import Client, Reply, event

from failpath_otel.server.forward.parcels import ForwardRequest, Parcel
from failpath_otel.server.forward.suspects import MAX_KNOWN, Suspects

FAULTS = {
    "500": always(500),
    "503": always(503),
    "reset": reset,
    "cut": cut,
    "401": always(401),
    "403": always(403),
    "406": always(406),
}


@pytest.fixture
def bridge(sink: HttpSink) -> Iterator[Client]:
    with bridge_to(sink.url, None, "fp_project_1") as client:
        yield client


def to_bad_ones(sink: HttpSink, bad: Answer) -> Answer:
    """Gives ``bad`` to requests that have an event of a run named bad among theirs, and takes all others."""

    def answer(request: Request, connection: socket.socket) -> None:
        if any(one["runId"].startswith("bad") for one in request.events):
            bad(request, connection)
        else:
            connection.sendall(reply(202, sink.store(request)))

    return answer


def until_taken(bridge: Client, *events: dict[str, Any]) -> Reply:
    """Sends again whenever the bridge asks for that, as a Collector does."""
    end = time.monotonic() + 60
    while (answer := bridge.send_events(*events)).status != 202:
        assert answer.status == 503
        assert time.monotonic() < end, answer.body
    return answer


@pytest.mark.parametrize("fault", FAULTS)
def test_an_event_on_which_it_fails_is_refused_and_the_others_go_on(bridge, sink, fault):
    sink.answer = to_bad_ones(sink, FAULTS[fault])
    batch = [event(f"r-{n}") for n in range(50)]
    bad = event("bad")
    answer = until_taken(bridge, *batch[:20], bad, *batch[20:]).json
    assert [item["eventId"] for item in answer["rejected"]] == [bad["eventId"]]
    assert "fails alone, while others are taken" in answer["rejected"][0]["reason"]
    assert set(sink.stored) == {one["eventId"] for one in batch}
    assert forward_state(bridge)["failingSince"] is None
    assert len(sink.requests) < 80


@pytest.mark.parametrize("fault", ["500", "403"])
def test_other_senders_are_not_held_up_by_a_sender_that_comes_with_it_again_and_again(bridge, sink, fault):
    sink.answer = to_bad_ones(sink, FAULTS[fault])
    rejected: list[str] = []
    for n in range(30):
        if not rejected:
            answer = bridge.send_events(event("bad"))
            rejected += [item["eventId"] for item in (answer.json["rejected"] if answer.status == 202 else ())]
        until_taken(bridge, event(f"r-{n}"))
    assert len(sink.stored) == 30
    assert rejected == [event("bad")["eventId"]]


@pytest.mark.parametrize("fault", ["500", "reset"])
def test_while_nothing_is_taken_nothing_is_refused(bridge, sink, fault):
    sink.answer = FAULTS[fault]
    batch = [event(f"r-{n}") for n in range(50)]
    for _ in range(12):
        assert bridge.send_events(*batch).status == 503
    assert forward_state(bridge)["rejected"] == 0
    sink.answer = None
    assert until_taken(bridge, *batch).json["rejected"] == []
    assert len(sink.stored) == 50


def test_a_server_that_takes_empty_batches_from_anybody_does_not_have_events_refused(bridge, sink):
    """The key is wrong all the same."""

    def answer(request: Request, connection: socket.socket) -> None:
        connection.sendall(reply(401) if request.events else reply(202, sink.store(request)))

    sink.answer = answer
    batch = [event(f"r-{n}") for n in range(50)]
    for _ in range(8):
        assert bridge.send_events(*batch).status == 503
    assert forward_state(bridge)["rejected"] == 0
    sink.answer = None
    assert until_taken(bridge, *batch).json["rejected"] == []


def test_what_is_known_is_bounded():
    from support.delivery import event as step_event

    request = ForwardRequest(None, 0.0, 1, 1, 1)  # type: ignore[arg-type]
    suspects = Suspects()
    for number in range(3 * MAX_KNOWN):
        one = step_event(number)
        suspects.failed_together([Parcel(request, [one], 1)])
        suspects.failed_alone(one, before=False)
    assert len(suspects._alone) == len(suspects._together) == MAX_KNOWN
