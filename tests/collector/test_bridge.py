"""quickstart.yaml before a bridge: what a Collector brings is behind the bridge as it was done, through outages and kills."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.bridges import forward_state
from support.collector import Collector, StartCollector
from support.http_sink import always
from support.otlp_backend import Gate
from support.ports import free_port
from support.served import Client, Served, until
from support.shop import Shop, assert_exact, shop

FAILPATH = "otlp_http/failpath"


@pytest.fixture(params=["with a store", "without a store"])
def start_bridge(request: pytest.FixtureRequest, start_server: Callable[..., Served], gated: Gate) -> Callable[..., Served]:
    """Starts a bridge, always on the same port, which sends to the server ``api`` through the gate."""
    port = str(free_port())
    keeping = () if request.param == "with a store" else ("--no-store",)
    return lambda: start_server("--port", port, *keeping, "--forward-to", gated.url)


@pytest.fixture
def bridge(start_bridge: Callable[..., Served]) -> Served:
    return start_bridge()


@pytest.fixture
def collector(start_collector: StartCollector, bridge: Served, tmp_path: Path) -> Collector:
    env = {"FAILPATH_ENDPOINT": bridge.url, "BACKEND_FILE": str(tmp_path / "backend.jsonl")}
    return start_collector("quickstart.yaml", env)


def assert_nothing_lost(collector: Collector, api: Client, service: Shop) -> None:
    assert_exact(api, service, events=service.attempts)
    assert collector.metric("exporter_send_failed_spans", exporter=FAILPATH) == 0
    assert "Dropping data" not in collector.said(1000)


def test_what_the_bridge_is_refused_waits_in_the_collector(
    bridge: Served, gated: Gate, collector: Collector, api: Client
) -> None:
    with shop(spans_to=collector.endpoint) as service:
        service.checkouts(4)
        service.flush()
        assert_exact(api, service)
        gated.refuse = always(503, Retry_After="4")  # longer than the bridge itself waits
        service.checkouts(8)
        service.flush()
        until(lambda: forward_state(bridge)["heldBack"])
        gated.refuse = None
        assert_nothing_lost(collector, api, service)


def test_a_bridge_that_is_killed_during_an_outage_behind_it_loses_nothing(
    start_bridge: Callable[..., Served], bridge: Served, gated: Gate, collector: Collector, api: Client
) -> None:
    with shop(spans_to=collector.endpoint) as service:
        gated.close()
        service.checkouts(8)
        service.flush()
        until(lambda: forward_state(bridge)["failingSince"])
        bridge.process.kill()
        bridge.end()
        service.checkouts(4)
        service.flush()
        gated.open()
        start_bridge()
        assert_nothing_lost(collector, api, service)
