"""Steps that wait for their event while the destination is failing already."""

from __future__ import annotations

import sys

import pytest
from support.delivery import ScriptedExporter, event

from failpath_otel.delivery.delivery import Delivery
from failpath_otel.errors import RetryableError


def test_they_do_not_wait_and_do_not_have_it_called_before_its_pause_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    # No option sets the pause; the real one is over too soon for a test on a busy machine.
    monkeypatch.setattr("failpath_otel.delivery.sending._FIRST_BACKOFF_SECONDS", 600.0)
    exporter = ScriptedExporter(*[RetryableError("down")] * 10_000)
    delivery = Delivery(exporter, max_queue_size=10_000)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # the worker is to have its chance to call too often
    try:
        failures = [delivery.record_and_wait(event(number), 60_000) for number in range(1, 2001)]
        assert {str(failure) for failure in failures} == {"down"}
        assert len(exporter.calls) == 1
        assert delivery.stats().pending == 2000
    finally:
        sys.setswitchinterval(interval)
        delivery.shutdown(0)
