"""A bridge and what it forwards with: what goes on, what does not, and that bounds are free again afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from support.behind import Behind
from support.story import event, run

from failpath_otel.errors import RetryableError
from failpath_otel.events.step import StepEvent
from failpath_otel.server.forward.bridge import Bridge
from failpath_otel.server.forward.forwarder import Forward
from failpath_otel.server.forward.outage import Outage
from failpath_otel.server.forward.parcels import ForwardRequest, Parcel, WaitingRoom
from failpath_otel.server.settings import Destination
from failpath_otel.server.sink import Counts, Receipt


class RejectingStore:
    """A store that rejects events by their ids and knows some already."""

    def __init__(self, rejected: dict[str, str]) -> None:
        self.rejected = rejected
        self.counts = Counts()

    def start(self) -> None:
        pass

    async def submit(self, events: Sequence[StepEvent]) -> Receipt:
        bad = {one.event_id: self.rejected[one.event_id] for one in events if one.event_id in self.rejected}
        return Receipt(len(events) - len(bad), 0, bad)

    def count(self, kind: Any, n: int = 1) -> None:
        self.counts.count(kind, n)

    def intake(self) -> Any:
        return self.counts.row()

    async def close(self) -> None:
        pass


def test_what_the_store_rejects_does_not_go_on():
    async def story():
        behind = Behind()
        bridge = Bridge(Forward(Destination("http://behind", lambda: behind)), RejectingStore({"bad": "no room for it"}))
        bridge.start()
        try:
            receipt = await bridge.submit([event("a", event_id="good"), event("b", event_id="bad")])
        finally:
            await bridge.close()
        assert receipt == Receipt(1, 0, {"bad": "no room for it"})
        assert behind.taken == {"good"}

    run(story())


@pytest.mark.parametrize("bound", [{"max_waiting_events": 4}, {"max_waiting_bytes": 12_000}], ids=str)
def test_what_went_on_makes_room_for_more(bound: dict[str, int]):
    async def story():
        behind = Behind()
        forward = Forward(Destination("http://behind", lambda: behind), **bound)
        forward.start()
        try:
            for _ in range(5):
                await forward.submit([event("a", metadata={"text": "x" * 4_000}), event("b", metadata={"text": "x" * 4_000})])
            # Beside one that waits, so that what is still counted of those before would be too much.
            behind.gate.clear()
            waiting = [asyncio.ensure_future(forward.submit([event("c")])) for _ in range(2)]
            while forward.state().waiting < 2:  # noqa: ASYNC110 - two tasks have only to begin
                await asyncio.sleep(0)
            behind.gate.set()
            assert [receipt.accepted for receipt in await asyncio.gather(*waiting)] == [1, 1]
        finally:
            behind.gate.set()
            await forward.close()

    run(story())


def test_what_a_sender_has_its_answer_for_is_left_out_of_the_next_request():
    async def story():
        loop = asyncio.get_running_loop()
        requests = [ForwardRequest(loop.create_future(), 100.0, 1, 1, 10) for _ in range(3)]
        room = WaitingRoom()
        room.add(Parcel(request, [event("a")], 10) for request in requests)
        requests[1].future.cancel()
        taken, overdue = room.take(0.0)
        assert [parcel.request for parcel in taken] == [requests[0], requests[2]]
        assert (overdue, len(room)) == ([], 0)

    run(story())


def test_of_several_pauses_that_upstream_asks_for_the_longest_holds():
    now = 1000.0
    outage = Outage(monotonic=lambda: now)
    outage.begin(RetryableError("busy", retry_after=60), called_at=now - 1)
    outage.begin(RetryableError("busy", retry_after=2), called_at=now - 1)
    assert outage.left() == 60.0
    assert outage.end() is None
    assert outage.left() == 0.0
