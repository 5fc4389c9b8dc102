"""What is made of a message's headers, whoever wrote them. The broker itself is in tests/neighbours/test_kafka.py."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest

from failpath_otel.integrations.kafka import consumed, headers_with_run
from failpath_otel.testing import RecordingClient

W3C = [
    ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("baggage", b"failpath.flow.slug=checkout,failpath.run.id=of-w3c"),
]
OWN = ("failpath", json.dumps({"baggage": "failpath.flow.slug=checkout,failpath.run.id=own"}).encode())


@dataclass
class Record:
    """As aiokafka and kafka-python have it."""

    headers: Any
    topic: str = "orders"
    partition: int = 2
    offset: int = 7


class Message:
    """As confluent-kafka has it."""

    def __init__(self, headers: Any) -> None:
        self._headers = headers

    def headers(self) -> Any:
        return self._headers


@pytest.fixture
def client() -> Any:
    with RecordingClient(flows=False) as made:
        yield made


def run_in(client: RecordingClient, message: Any, **options: Any) -> str | None:
    client.reset()
    with consumed(client, message, step_key="handle", **options):
        pass
    return client.events[0].run_id if client.events else None


@pytest.mark.parametrize("kind", [Record, Message])
@pytest.mark.parametrize(
    ("headers", "run_id"),
    [
        (W3C, "of-w3c"),
        (tuple(W3C), "of-w3c"),
        (dict(W3C), "of-w3c"),
        ([*W3C, OWN], "own"),
        ([OWN], "own"),
        ([*W3C, ("failpath", b"{")], "of-w3c"),
        ([*W3C, ("failpath", b"[1]")], "of-w3c"),
        ([*W3C, ("failpath", b'{"baggage": 7}')], "of-w3c"),
        ([("baggage", None), OWN], "own"),
        ([("baggage", b"\xff\xfe")], None),
        ([("baggage", b"failpath.run.id=%zz")], None),
        ([7], None),
        (7, None),
        ([], None),
        (None, None),
    ],
    ids=repr,
)
def test_the_run_of_a_message_is_read_from_its_headers_or_there_is_none(
    kind: Any, headers: Any, run_id: str | None, client: RecordingClient
) -> None:
    assert run_in(client, kind(headers)) == run_id


def test_a_message_without_a_run_begins_one_that_is_known_by_its_place(client: RecordingClient) -> None:
    assert run_in(client, Record([]), flow="restock") == "orders-2-7"
    assert run_in(client, Record([]), flow="restock", run_id=12) == "12"
    assert run_in(client, Record(W3C), flow="restock") == "of-w3c"


def test_what_is_forwarded_goes_on_with_the_run_of_the_moment(client: RecordingClient) -> None:
    with client.run("checkout", "r2"):
        headers = headers_with_run(client, {"kind": b"order", "failpath": OWN[1]})
    assert [name for name, _ in headers] == ["kind", "failpath"]
    assert run_in(client, Record(headers)) == "r2"


@pytest.mark.parametrize(
    ("given", "left"), [(None, []), ([("kind", b"order")], [("kind", b"order")]), ({"a": b"b"}, [("a", b"b")])]
)
def test_outside_of_a_run_headers_stay_as_they_are(given: Any, left: Any, client: RecordingClient) -> None:
    assert headers_with_run(client, given) == left


def test_an_asynchronous_handler_ends_as_its_step_does_and_its_exception_passes(client: RecordingClient) -> None:
    gone = LookupError("gone")

    async def handle() -> None:
        async with consumed(client, Record([OWN]), step_key="handle") as run:
            assert client.current_run() is run
            raise gone

    with pytest.raises(LookupError) as caught:
        asyncio.run(handle())
    assert caught.value is gone
    assert [(event.run_id, event.status) for event in client.events] == [("own", "running"), ("own", "error")]
    assert client.current_run() is None
