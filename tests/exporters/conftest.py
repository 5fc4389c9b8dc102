from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.delivery import ScriptedExporter
from support.http_sink import HttpSink, http_sink

from failpath_otel import FailpathClient, notices
from failpath_otel.delivery import Delivery


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """No option from the environment, and no warning that an earlier test has given already."""
    for name in list(os.environ):
        if name.startswith("FAILPATH_") and name not in ("FAILPATH_TEST_INSTALLED", "FAILPATH_CHROMIUM"):
            monkeypatch.delenv(name)
    notices.forget()


@pytest.fixture
def sink() -> Iterator[HttpSink]:
    with http_sink() as sink:
        yield sink


@pytest.fixture
def deliver() -> Iterator[Callable[..., Delivery]]:
    """Makes deliveries with small waits, and ends them."""
    made: list[tuple[Delivery, Any]] = []

    def make(exporter: Any, **options: Any) -> Delivery:
        delivery = Delivery(exporter, **{"max_queue_size": 10_000, "linger_millis": 5, **options})
        made.append((delivery, exporter))
        return delivery

    yield make
    for delivery, exporter in made:
        if isinstance(exporter, ScriptedExporter):
            exporter.gate.set()
        delivery.shutdown(0)


@pytest.fixture
def client() -> Iterator[Callable[..., FailpathClient]]:
    """Makes clients without flows.json, and ends them."""
    made: list[FailpathClient] = []

    def make(**options: Any) -> FailpathClient:
        client = FailpathClient(**{"flows": False, **options})
        made.append(client)
        return client

    yield make
    for each in made:
        each.shutdown(0)
