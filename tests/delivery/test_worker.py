"""The delivery thread: one, whatever Python says of it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from support.delivery import ScriptedExporter, event

from failpath_otel.delivery import Delivery


def test_a_thread_that_python_takes_for_dead_is_not_started_twice(
    deliver: Callable[..., Delivery], workers: list[threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Thread.is_alive` that an alarm interrupts marks a thread as stopped that is not, before Python 3.13."""
    delivery = deliver(ScriptedExporter(), linger_millis=0)
    delivery.record(event(1))
    assert delivery.flush(20_000)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "is_alive", lambda self: False)
        delivery.record(event(2))
        assert delivery.flush(20_000).sent == 2
    assert len(workers) == 1


def test_a_start_that_is_interrupted_is_made_good_by_the_next_event(
    deliver: Callable[..., Delivery], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the thread runs by then or not."""
    start = threading.Thread.start
    exporter = ScriptedExporter()
    delivery = deliver(exporter, linger_millis=0)
    for number, runs in enumerate((False, True), 1):

        def interrupted(thread: threading.Thread, runs: bool = runs) -> None:
            if runs:
                start(thread)
            raise TimeoutError

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", interrupted)
            with pytest.raises(TimeoutError):
                delivery.record(event(number))
    delivery.record(event(3))
    exporter.wait_for(3)
    assert exporter.numbers == [1, 2, 3]
