"""Servers, Collectors and backends on real sockets, all on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.collector import StartCollector, built, collector_path, collectors
from support.otlp_backend import Gate, OtlpBackend, gate, otlp_backend
from support.served import Client, Served, in_thread, start
from support.shop import FLOWS

from failpath_otel.flows import parse_flows
from failpath_otel.server.settings import Settings


@pytest.fixture(scope="session")
def collector_binary() -> Path:
    """The path of a Collector; without one the test is skipped, or fails where CI is set."""
    return collector_path()


@pytest.fixture(scope="session")
def telemetrygen() -> Path:
    """The path of ``telemetrygen``, by the same rule."""
    return built("telemetrygen")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Client]:
    """Our server, in a thread, empty, with the shop's flow declared."""
    with in_thread(Settings(db=str(tmp_path / "runs.db"), flows=parse_flows(FLOWS), port=0)) as client:
        yield client


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts ``failpath-otel serve`` as a process, with arguments; to be killed and started again."""
    started: list[Served] = []

    def begin(*arguments: str, **options: dict[str, str]) -> Served:
        started.append(start(tmp_path / "server", *arguments, **options))
        return started[-1]

    yield begin
    for served in started:
        served.end()


@pytest.fixture
def backend() -> Iterator[OtlpBackend]:
    """A tracing backend that is not ours."""
    with otlp_backend() as recording:
        yield recording


@pytest.fixture
def gated(api: Client) -> Iterator[Gate]:
    """A gate in front of our server."""
    with gate(api.url) as between:
        yield between


@pytest.fixture
def start_collector(collector_binary: Path, tmp_path: Path) -> Iterator[StartCollector]:
    """Starts a Collector: the name of a file in collector-config/, then the environment that it reads."""
    with collectors(tmp_path) as begin:
        yield begin
