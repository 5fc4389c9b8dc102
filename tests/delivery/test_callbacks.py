"""Callbacks and masks: what they may do, and what they cannot break."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.delivery import OwnBase, ScriptedExporter, event, until

from failpath_otel.delivery import Delivery
from failpath_otel.errors import RejectedError, RetryableError
from failpath_otel.events.step import StepEvent

Deliver = Callable[..., Delivery]


def record(delivery: Delivery, *numbers: int) -> None:
    for number in numbers:
        delivery.record(event(number))


@pytest.mark.parametrize("raised", [ValueError("x"), SystemExit(1), OwnBase()])
def test_callbacks_that_raise_do_no_harm(deliver: Deliver, raised: BaseException) -> None:
    def callback(*args: object) -> None:
        raise raised

    exporter = ScriptedExporter(RejectedError({event(1).event_id: "no"}), ValueError(), RetryableError("later"))
    delivery = deliver(exporter, on_error=callback, on_drop=callback)
    for number in (1, 2, 3):
        record(delivery, number)
        delivery.flush(20_000)
    stats = delivery.stats()
    assert (stats.sent, stats.pending, stats.dropped) == (1, 0, {"rejected": 2})


def test_on_error_is_told_of_each_failed_attempt(deliver: Deliver) -> None:
    failures = [RetryableError("a"), RetryableError("b")]
    told: list[Exception] = []
    delivery = deliver(ScriptedExporter(*failures), on_error=told.append)
    record(delivery, 1)
    until(lambda: delivery.stats().sent == 1)
    assert told == failures


def test_a_flush_returns_when_on_drop_was_told(deliver: Deliver) -> None:
    returned = threading.Event()
    too_early: list[bool] = []
    exporter = ScriptedExporter(RejectedError({event(1).event_id: "no"}))
    delivery = deliver(exporter, on_drop=lambda *_: too_early.append(returned.wait(0.2)))
    exporter.gate.clear()
    record(delivery, 1)
    until(exporter.entered.is_set)
    threading.Timer(0.05, exporter.gate.set).start()
    assert delivery.flush(20_000)
    returned.set()
    assert too_early == [False]


def test_callbacks_on_the_worker_may_use_the_client(deliver: Deliver) -> None:
    """Recording, flushing and counting from on_error neither deadlocks nor waits for itself."""

    def on_error(error: Exception) -> None:
        delivery.record(event(50))
        assert delivery.record_and_wait(event(51), 0) is None
        delivery.flush(60_000)
        delivery.stats()

    delivery = deliver(ScriptedExporter(ValueError("no")), on_error=on_error)
    record(delivery, 1)
    until(lambda: delivery.stats().sent == 2, 30)


def test_shutdown_from_a_callback_ends_the_worker(deliver: Deliver) -> None:
    exporter = ScriptedExporter(ValueError("no"))
    delivery = deliver(exporter, on_error=lambda error: delivery.shutdown(60_000))
    record(delivery, 1)
    until(lambda: exporter.closed)
    assert delivery.stats().dropped == {"shutdown": 1}


# Masking


def test_mask_is_applied_once_however_often_an_event_is_tried(deliver: Deliver) -> None:
    masked: list[str] = []

    def mask(incoming: StepEvent) -> StepEvent:
        masked.append(incoming.event_id)
        return incoming

    seen: list[int] = []
    exporter = ScriptedExporter(RetryableError("a"), lambda batch: seen.append(len(batch)))
    delivery = deliver(exporter, mask=mask)
    record(delivery, 1, 2, 3)
    until(lambda: delivery.stats().sent == 3)
    assert sorted(masked) == sorted(event(number).event_id for number in (1, 2, 3))


@pytest.mark.parametrize("result", [ValueError("x"), SystemExit(1), None, "text"])
def test_mask_that_fails_sends_the_event_bare(deliver: Deliver, result: Any) -> None:
    """And only that event: its neighbours go as they are."""

    def mask(incoming: StepEvent) -> Any:
        if incoming.span_id == event(2).span_id:
            if isinstance(result, BaseException):
                raise result
            return result
        return incoming

    exporter = ScriptedExporter()
    delivery = deliver(exporter, mask=mask, linger_millis=100)
    for number in (1, 2):
        delivery.record(event(number, "error", metadata={"card": "4111"}, skip_reason="s"))
    assert delivery.flush(20_000)
    plain, bare = exporter.events
    assert plain.metadata == {"card": "4111"}
    assert (bare.metadata, bare.skip_reason) == ({}, None)
    assert bare.error is not None
    assert (bare.error.name, bare.error.message, bare.error.stack) == ("Declined", "", None)
    assert delivery.stats().mask_failures == 1


def test_mask_may_change_metadata_in_place(deliver: Deliver) -> None:
    """The dictionary is shared by the events of a run, so the mask gets a copy."""
    shared = {"card": "4111", "deep": {"card": "4111"}}

    def mask(incoming: StepEvent) -> StepEvent:
        incoming.metadata["deep"].pop("card")
        incoming.metadata.pop("card")
        return incoming

    exporter = ScriptedExporter()
    delivery = deliver(exporter, mask=mask)
    delivery.record(event(1, metadata=shared))
    delivery.record(event(2, metadata=shared))
    assert delivery.flush(20_000)
    assert [e.metadata for e in exporter.events] == [{"deep": {}}] * 2
    assert shared == {"card": "4111", "deep": {"card": "4111"}}
