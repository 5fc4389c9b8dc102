"""What waits to go on: its bounds, faults of ours, pauses, and the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.behind import Behind
from support.served import until
from support.story import event, run

from failpath_otel.errors import ExportError, RetryableError
from failpath_otel.events.step import StepEvent
from failpath_otel.server.forward import forwarder as forward_module
from failpath_otel.server.forward.forwarder import CONNECTIONS, Forward
from failpath_otel.server.forward.outage import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Outage
from failpath_otel.server.forward.parcels import MAX_PARCEL_BYTES, MAX_PARCEL_EVENTS
from failpath_otel.server.settings import Destination
from failpath_otel.server.sink import Overloaded, UpstreamUnavailable

LOG = "failpath_otel.server"


@asynccontextmanager
async def forwarding(behind: Behind, **options: Any) -> AsyncIterator[Forward]:
    forward = Forward(Destination("http://behind", lambda: behind), **options)
    forward.start()
    try:
        yield forward
    finally:
        behind.gate.set()
        await forward.close()


async def passed(seconds: float) -> None:
    """Until so much time has gone by on the clock that pauses go by: `Forward` takes no other, and nothing else shows it."""
    end = time.monotonic() + seconds
    await asyncio.to_thread(until, lambda: time.monotonic() > end)


def names(*events: StepEvent) -> set[str]:
    return {one.event_id for one in events}


def test_more_events_than_the_bound_are_refused_and_those_before_go_on():
    async def story():
        behind = Behind()
        behind.gate.clear()
        first, second, third = [event("a"), event("b")], [event("c")], [event("d")]
        async with forwarding(behind, max_waiting_events=3) as forward:
            waiting = [asyncio.ensure_future(forward.submit(events)) for events in (first, second)]
            await behind.until_called()
            with pytest.raises(Overloaded, match=r"3 events of .* wait already, at most 3 of") as raised:
                await forward.submit(third)
            assert raised.value.retry_after == 1.0
            assert (forward.state().waiting, forward.state().held_back) == (3, 1)
            behind.gate.set()
            assert [receipt.accepted for receipt in await asyncio.gather(*waiting)] == [2, 1]
            assert forward.state().waiting == 0
            assert (await forward.submit(third)).accepted == 1
        assert behind.taken == names(*first, *second, *third)

    run(story())


def test_large_events_are_bounded_by_their_size():
    async def story():
        behind = Behind()
        behind.gate.clear()
        async with forwarding(behind, max_waiting_bytes=10_000) as forward:
            waiting = asyncio.ensure_future(forward.submit([event("a", metadata={"text": "x" * 9_000})]))
            await behind.until_called()
            with pytest.raises(Overloaded, match="at most 50000 of 10000 bytes"):
                await forward.submit([event("b", metadata={"text": "x" * 2_000})])
            behind.gate.set()
            await waiting

    run(story())


def test_one_request_over_every_bound_goes_on_when_nothing_else_waits():
    async def story():
        behind = Behind()
        many = [event(f"s-{n}", metadata={"text": "x" * 5_000}) for n in range(3_000)]
        async with forwarding(behind, max_waiting_events=10, max_waiting_bytes=10) as forward:
            assert (await forward.submit(many)).accepted == 3_000
        assert behind.taken == names(*many)
        assert max(map(len, behind.calls)) <= MAX_PARCEL_EVENTS
        assert max(behind.sizes) <= MAX_PARCEL_BYTES

    run(story())


def test_what_waits_longer_than_the_patience_is_refused_although_upstream_answers():
    """Upstream is slow: all connections are busy, and the turn of what waits does not come."""

    async def story():
        behind = Behind()
        behind.gate.clear()
        async with forwarding(behind, patience_seconds=1.0) as forward:
            busy = []
            for n in range(CONNECTIONS):
                busy.append(asyncio.ensure_future(forward.submit([event(f"busy-{n}")])))
                await behind.until_called()
            late = asyncio.ensure_future(forward.submit([event("late")]))
            await passed(1.1)
            behind.gate.set()
            with pytest.raises(UpstreamUnavailable, match="slower than events come in"):
                await late
            assert [receipt.accepted for receipt in await asyncio.gather(*busy)] == [1] * CONNECTIONS

    run(story())


def test_while_it_is_down_nothing_is_held_here_and_one_batch_at_a_time_tries():
    async def story():
        behind = Behind()
        # The pause is longer than the patience by what a busy machine needs for the twenty; the patience is long enough
        # for the three that wait at last.
        behind.fault = RetryableError("down", retry_after=4.0)
        async with forwarding(behind, patience_seconds=2.0) as forward:
            with pytest.raises(UpstreamUnavailable, match="down"):
                await forward.submit([event("a")])
            for n in range(20):
                with pytest.raises(UpstreamUnavailable, match="down"):
                    await forward.submit([event(f"b-{n}")])
            assert forward.state().waiting == 0
            assert len(behind.calls) == 1
            behind.gate.clear()
            behind.fault = None
            await passed(4.0)
            trying = asyncio.ensure_future(forward.submit([event("probe")]))
            await behind.until_called(2)
            others = [asyncio.ensure_future(forward.submit([event(f"c-{n}")])) for n in range(3)]
            assert not await asyncio.to_thread(behind.called.acquire, timeout=0.2), "another thread took one"
            assert forward.state().waiting == 4
            behind.gate.set()
            assert (await trying).accepted == 1
            assert all(receipt.accepted == 1 for receipt in await asyncio.gather(*others))
            # While one tried, the others waited, and so went on together.
            assert list(map(len, behind.calls)) == [1, 1, 3]

    run(story())


def test_a_fault_of_ours_rejects_nothing_and_holds_up_no_one(caplog):
    async def story():
        behind = Behind()
        behind.fault = ZeroDivisionError("ours")
        async with forwarding(behind) as forward:
            with pytest.raises(UpstreamUnavailable, match="ZeroDivisionError: ours"):
                await forward.submit([event("a")])
            behind.fault = None
            assert (await forward.submit([event("b")])).accepted == 1
            assert forward.state().failing_since is None

    with caplog.at_level(logging.ERROR, LOG):
        run(story())
    assert [record.message for record in caplog.records] == ["events could not be sent on"]


def test_a_fault_of_ours_in_the_try_after_an_outage_does_not_end_all_tries():
    async def story():
        behind = Behind()
        behind.fault = RetryableError("down", retry_after=1.3)
        async with forwarding(behind, patience_seconds=1.0) as forward:
            with pytest.raises(UpstreamUnavailable, match="down"):
                await forward.submit([event("a")])
            behind.fault = ZeroDivisionError("ours")
            await passed(1.3)
            with pytest.raises(UpstreamUnavailable, match="ours"):
                await forward.submit([event("b")])
            behind.fault = None
            assert (await forward.submit([event("c")])).accepted == 1

    run(story())


def test_events_that_are_refused_for_longer_than_can_be_tried_stay_with_their_sender(monkeypatch):
    monkeypatch.setattr(forward_module, "APART_SECONDS", -1.0)

    async def story():
        behind = Behind()
        bad, good = event("bad"), event("good")
        behind.refused = names(bad)
        async with forwarding(behind) as forward:
            with pytest.raises(UpstreamUnavailable, match="refuses so many events"):
                await forward.submit([good, bad])

    run(story())


def test_its_own_requests_are_not_instrumented():
    async def story():
        behind = Behind()
        async with forwarding(behind) as forward:
            await forward.submit([event("a")])
        assert behind.suppressed == {True}

    run(story())


def test_at_the_end_what_is_on_its_way_is_waited_for_and_connections_are_closed():
    async def story():
        behind = Behind()
        behind.gate.clear()
        async with forwarding(behind) as forward:
            waiting = asyncio.ensure_future(forward.submit([event("a")]))
            await behind.until_called()
            closing = asyncio.ensure_future(forward.close())
            await asyncio.sleep(0)
            with pytest.raises(UpstreamUnavailable, match="stops"):
                await forward.submit([event("b")])
            behind.gate.set()
            assert (await waiting).accepted == 1
            await closing
        for _ in range(CONNECTIONS):
            assert await asyncio.to_thread(behind.closed.acquire, timeout=30)

    run(story())


def test_at_the_end_an_upstream_that_hangs_is_not_waited_for_longer_than_the_bound():
    async def story():
        behind = Behind()
        behind.gate.clear()
        async with forwarding(behind) as forward:
            waiting = asyncio.ensure_future(forward.submit([event("a")]))
            await behind.until_called()
            await asyncio.wait_for(forward.close(), 30)
            assert not behind.gate.is_set()  # so it still hangs, and will for longer than was waited here
            with pytest.raises(UpstreamUnavailable, match="before upstream answered"):
                await waiting

    run(story())


def test_at_an_end_within_an_outage_senders_are_answered_at_once(monkeypatch):
    monkeypatch.setattr(forward_module, "CLOSE_SECONDS", 60.0)

    async def story():
        behind = Behind()
        behind.fault = RetryableError("down", retry_after=60.0)
        async with forwarding(behind, patience_seconds=90.0) as forward:
            waiting = asyncio.ensure_future(forward.submit([event("a")]))
            await behind.until_called()
            await asyncio.to_thread(until, lambda: forward.state().failing_since)
            forward.begin_close()
            with pytest.raises(UpstreamUnavailable, match="stops"):
                await asyncio.wait_for(waiting, 20)

    run(story())


# The pauses


class Moment:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_pauses_grow_and_a_success_ends_them():
    moment = Moment()
    outage = Outage(lambda: 0, moment)
    for n in range(20):
        outage.begin(RetryableError("down"), moment.now)
        ceiling = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**n)
        assert ceiling / 2 <= outage.left() <= ceiling
        moment.now += outage.left()
    outage.end()
    assert (outage.open, outage.left()) == (False, 0.0)
    outage.begin(RetryableError("down"), moment.now)
    assert outage.left() <= FIRST_PAUSE_SECONDS


def test_calls_that_fail_together_are_one_failure():
    moment = Moment()
    outage = Outage(lambda: 0, moment)
    begun = moment.now
    moment.now += 1
    for _ in range(4):
        outage.begin(RetryableError("down"), begun)
    assert outage.left() <= FIRST_PAUSE_SECONDS


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (RetryableError("down", retry_after=1.5), 1.5),
        (RetryableError("down", retry_after=700), 700),
        (ExportError("redirects"), 60),
    ],
)
def test_what_upstream_asks_for_is_kept_to(error, pause):
    outage = Outage(lambda: 0, Moment())
    outage.begin(error, 100.0)
    assert outage.left() == pause


def test_no_time_at_all_is_not_taken_at_its_word():
    outage = Outage(lambda: 0, Moment())
    outage.begin(RetryableError("down", retry_after=0.0), 100.0)
    assert outage.left() >= FIRST_PAUSE_SECONDS / 2
