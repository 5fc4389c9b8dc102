"""Servers on real sockets: ``api`` in a thread, shared by a module; ``server`` and ``start_server`` as processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.http_sink import HttpSink, http_sink
from support.served import Client, Served, in_thread, start

from failpath_otel.flows import parse_flows
from failpath_otel.server.settings import Settings

FLOWS = {
    "flows": [
        {"slug": "checkout", "name": "Checkout", "nodes": [{"sdkStepKey": "validate-cart"}, {"sdkStepKey": "charge-card"}]},
    ]
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server in a thread, with a flow ``checkout`` of two steps. Tests keep apart by their run ids."""
    db = tmp_path_factory.mktemp("api") / "runs.db"
    with in_thread(Settings(db=str(db), flows=parse_flows(FLOWS), port=0)) as client:
        yield client


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts ``failpath-otel serve`` with arguments; every such process has ended when the test is done."""
    started: list[Served] = []

    def begin(*arguments: str, **options: Any) -> Served:
        started.append(start(tmp_path, *arguments, **options))
        return started[-1]

    yield begin
    for served in started:
        served.end()


@pytest.fixture
def server(start_server: Callable[..., Served]) -> Served:
    """``failpath-otel serve`` with a database of its own."""
    return start_server()


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Served]:
    """A server with nothing to wait for, by whose end the end of another is measured."""
    served = start(tmp_path / "beside")
    yield served
    served.end()


@pytest.fixture
def sink() -> Iterator[HttpSink]:
    """A server to which events go on, which misbehaves as a test tells it to."""
    with http_sink() as listening:
        yield listening
