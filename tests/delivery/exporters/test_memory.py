from __future__ import annotations

from collections.abc import Callable

from support.delivery import event

from failpath_otel import FailpathClient
from failpath_otel.exporters import EventExporter, MemoryExporter


def test_events_are_kept_until_reset() -> None:
    exporter = MemoryExporter()
    exporter.export([event(1), event(2)], timeout_millis=1)
    exporter.close()
    assert exporter.events == [event(1), event(2)]
    exporter.reset()
    assert exporter.events == []


def test_a_client_delivers_into_it(client: Callable[..., FailpathClient]) -> None:
    exporter = MemoryExporter()
    failpath = client(exporter=exporter)
    failpath.run("checkout", "r1").step("pay", lambda: None)
    assert failpath.flush().sent == 2
    assert [each.status for each in exporter.events] == ["running", "success"]


def test_it_is_an_exporter() -> None:
    assert isinstance(MemoryExporter(), EventExporter)
