"""A run may be delivered in another way than its client's other runs."""

from __future__ import annotations

import asyncio
import logging

import pytest
from support.delivery import ScriptedExporter

from failpath_otel import FailpathClient


def make(exporter: ScriptedExporter, delivery: str) -> FailpathClient:
    return FailpathClient(exporter=exporter, delivery=delivery, flows=False, rules=False)  # type: ignore[arg-type]


def test_each_step_of_a_run_that_awaits_is_told_before_the_next_line() -> None:
    exporter = ScriptedExporter()
    with make(exporter, "background") as client:
        run = client.run("checkout", "r1", delivery="await")

        @client.step("decorated")
        def decorated() -> None:
            assert exporter.taken % 4 == 3

        for number in range(1, 6):
            with run, run.step("block"):
                assert exporter.taken == 4 * number - 3
            with run:
                exporter.wait_for(4 * number - 2, 0)
                decorated()
            exporter.wait_for(4 * number, 0)


def test_so_is_each_step_in_a_coroutine() -> None:
    exporter = ScriptedExporter()

    async def work() -> None:
        async with client.run("checkout", "r1", delivery="await").step("block"):
            assert exporter.taken == 1
        assert exporter.taken == 2

    with make(exporter, "background") as client:
        asyncio.run(work())


def test_a_run_in_the_background_waits_for_nothing_though_its_client_does() -> None:
    exporter = ScriptedExporter()
    exporter.gate.clear()
    with make(exporter, "await") as client:
        client.run("checkout", "r1", delivery="background").step("s", lambda: None)
        assert exporter.taken == 0
        exporter.gate.set()
    assert exporter.taken == 2


def test_a_way_that_there_is_not_is_told_of_and_the_clients_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    exporter = ScriptedExporter()
    with make(exporter, "await") as client, caplog.at_level(logging.WARNING, "failpath_otel"):
        client.run("checkout", "r1", delivery="awiat").step("s", lambda: None)  # type: ignore[call-overload]
        assert exporter.taken == 2
    assert "must be one of ('background', 'await'), got 'awiat'" in caplog.text


def test_a_client_that_sends_nothing_has_nothing_to_wait_for() -> None:
    for options in ({"exporter": "none"}, {"enabled": False}):
        with FailpathClient(flows=False, rules=False, **options) as client:  # type: ignore[arg-type]
            assert client.run("checkout", "r1", delivery="await").step("s", lambda: 7) == 7
