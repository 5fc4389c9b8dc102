"""Where no thread can be started, or at the end, exporters work on the application's thread: time limits leave."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from support.delivery import ScriptedExporter, event

from failpath_otel.delivery import Delivery
from failpath_otel.exporters import HttpExporter, JsonlExporter, http, jsonl
from failpath_otel.exporters.otlp import encoding
from failpath_otel.exporters.otlp.encoding import Encoder

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")


class SoftTimeLimit(Exception):
    """As Celery's, which `except Exception` takes."""


@pytest.fixture
def alarm() -> Iterator[Callable[..., Any]]:
    """Raises the time limit, as a signal does, wherever it is called."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise SoftTimeLimit

    before = signal.signal(signal.SIGUSR1, handler)
    yield lambda *_: signal.raise_signal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def test_it_leaves_an_exporter_that_encodes(alarm: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(http, "encode_event", alarm)
    monkeypatch.setattr(jsonl, "encode_event", alarm)
    monkeypatch.setattr(encoding, "log_attributes", alarm)
    rejected: dict[str, str] = {}
    with pytest.raises(SoftTimeLimit):
        HttpExporter("http://127.0.0.1:1", None).export([event(1)], timeout_millis=1000)
    with pytest.raises(SoftTimeLimit):
        JsonlExporter(tmp_path / "events.jsonl").export([event(1)], timeout_millis=1000)
    with pytest.raises(SoftTimeLimit):
        list(Encoder(lambda: Resource({}), lambda: 1).bodies([event(1)], rejected))
    assert rejected == {}


def test_it_leaves_the_close_of_an_exporter(alarm: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = ScriptedExporter()
    monkeypatch.setattr(exporter, "close", alarm)
    with pytest.raises(SoftTimeLimit):
        Delivery(exporter, max_queue_size=10).shutdown(1000)
