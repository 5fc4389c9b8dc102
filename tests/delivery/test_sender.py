"""One attempt to send: how long it asks to wait, and that what it took waits again whatever ends it."""

from __future__ import annotations

import random

import pytest
from support.delivery import ScriptedExporter, event

from failpath_otel.delivery.delivery import Delivery
from failpath_otel.delivery.outbox import Outbox
from failpath_otel.delivery.sending import Sender
from failpath_otel.errors import RejectedError, RetryableError


def sender_of(exporter: ScriptedExporter, capacity: int = 10) -> tuple[Sender, Outbox]:
    outbox = Outbox(capacity, None)
    return Sender(outbox, exporter, max_batch_size=10, mask=None, on_error=None), outbox


def put(outbox: Outbox, *events: object) -> None:
    outbox.inbox.extend(events)  # type: ignore[arg-type]
    outbox.admit()


@pytest.mark.parametrize("asked", [3601, 10**9, float("inf")])
def test_a_destination_is_left_alone_for_an_hour_at_most(asked: float) -> None:
    sender, outbox = sender_of(ScriptedExporter(RetryableError("later", retry_after=asked)))
    put(outbox, event(1))
    assert sender.send(1000) == 3600


def test_a_failure_draws_nothing_from_the_generator_that_an_application_seeds() -> None:
    sender, outbox = sender_of(ScriptedExporter(RetryableError("later")))
    put(outbox, event(1))
    before = random.getstate()
    assert sender.send(1000) > 0
    assert random.getstate() == before


def test_what_an_interrupted_attempt_took_may_go_for_an_outcome_again() -> None:
    """At the interpreter's exit the calling thread sends, and Ctrl-C may come."""
    sender, outbox = sender_of(ScriptedExporter(KeyboardInterrupt()), capacity=1)
    put(outbox, event(1, "running"))
    with pytest.raises(KeyboardInterrupt):
        sender.send(1000)
    put(outbox, event(2, "success"))
    stats = outbox.stats(0, 0)
    assert (stats.pending, stats.dropped) == (1, {"queue_full": 1})


def test_what_was_taken_waits_again_after_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(RejectedError):
        """Nothing of ours expects it."""

        @property
        def rejected(self) -> dict[str, str]:  # type: ignore[override]
            raise LookupError("no such thing")

        @rejected.setter
        def rejected(self, _: object) -> None:
            pass

    exporter = ScriptedExporter(Odd({}))
    exporter.gate.clear()
    delivery = Delivery(exporter, max_queue_size=1)
    try:
        delivery.record(event(1, "running"))
        assert exporter.entered.wait(60)
        delivery.record(event(2, "success"))
        exporter.gate.set()
        delivery.flush(60_000)
        stats = delivery.stats()
        assert (stats.sent, stats.dropped) == (1, {"queue_full": 1})
        assert exporter.events == [event(2, "success")]
    finally:
        delivery.shutdown(0)


def test_a_full_queue_is_sent_without_waiting_for_company() -> None:
    exporter = ScriptedExporter()
    delivery = Delivery(exporter, max_queue_size=2, linger_millis=3_600_000)
    try:
        for first in (1, 3):  # the worker begins with the first pair, and lingers for the second
            delivery.record(event(first))
            delivery.record(event(first + 1))
            exporter.wait_for(first + 1)
        assert delivery.flush(60_000).dropped == {}
    finally:
        delivery.shutdown(0)
