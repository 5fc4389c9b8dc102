"""One run by several ways: events and spans apart, twice, late, shuffled, beside a direct way, over an outage. Known once."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.collector import Collector, StartCollector, generate
from support.http_sink import HttpSink, Request, reply
from support.otlp_bodies import PROTOBUF, logs, step, traces
from support.ports import free_port
from support.served import Client, Served, start, until
from support.shop import Shop, assert_exact, run_ids, shop

from failpath_otel import EventExporter, HttpExporter, StepEvent
from failpath_otel.exporters.otlp.exporter import OtlpExporter

STRICT = ("--config", "yaml:processors::filter/failpath::error_mode: propagate")
QUICKLY = ("--config", "yaml:exporters::otlp_http/failpath::retry_on_failure: {initial_interval: 50ms, max_interval: 500ms}")
RUNS_MEANWHILE = 400
"""Of a long outage; by their pace it is of half a minute."""

StartBefore = Callable[[str], Collector]


@pytest.fixture
def start_quickstart(
    start_collector: StartCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Collector]:
    """Starts a Collector that brings steps to a server, and has OTLP go to it by the environment."""

    def begin(server: str) -> Collector:
        env = {"FAILPATH_ENDPOINT": server, "BACKEND_FILE": str(tmp_path / "backend.jsonl")}
        collector = start_collector("quickstart.yaml", env, arguments=(*STRICT, *QUICKLY))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        return collector

    return begin


@pytest.fixture
def collector(start_quickstart: StartBefore, api: Client) -> Collector:
    return start_quickstart(api.url)


@contextlib.contextmanager
def selling(service: Shop) -> Iterator[None]:
    """Runs are made all the while."""
    closed = threading.Event()

    def sell() -> None:
        while not closed.wait(0.05):
            service.checkout()

    thread = threading.Thread(target=sell, name="selling")
    thread.start()
    try:
        yield
    finally:
        closed.set()
        thread.join()


@pytest.mark.timeout(400)  # so many runs take minutes on a busy machine
@pytest.mark.parametrize(
    ("sig", "runs"), [(signal.SIGKILL, RUNS_MEANWHILE), (signal.SIGTERM, 30)], ids=["killed, for long", "stopped, for a while"]
)
def test_runs_made_while_the_server_is_down_are_all_known_when_it_is_back(
    start_quickstart: StartBefore, tmp_path: Path, sig: signal.Signals, runs: int
) -> None:
    arguments = ("--port", str(free_port()))
    server = start(tmp_path / "server", *arguments)
    again: Served | None = None
    try:
        collector = start_quickstart(server.url)
        with shop(exporter="otlp", spans_to=collector.endpoint) as service:
            with selling(service):
                until(lambda: len(run_ids(server)) > 4)
                server.stop(sig)
                server.close()
                before = len(service.done)
                until(lambda: len(service.done) >= before + runs, 240)
                again = start(tmp_path / "server", *arguments)
                until(lambda: len(run_ids(again)) > before, 60)
            service.flush()
            # No flow is declared to this server, so only what was reported is compared.
            assert_exact(again, service, events=service.events)
            assert service.client.stats().dropped == {}
        assert collector.metric("exporter_send_failed_spans") == collector.metric("exporter_send_failed_log_records") == 0
    finally:
        for each in filter(None, (server, again)):
            each.end()


class Both(EventExporter):
    """Direct delivery and delivery through a Collector at once, of every event."""

    def __init__(self, *exporters: Any) -> None:
        self._exporters = exporters

    def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
        for exporter in self._exporters:
            exporter.export(batch, timeout_millis=timeout_millis)

    def close(self) -> None:
        for exporter in self._exporters:
            exporter.close()


@pytest.mark.parametrize("events", ["direct", "collector", "both"])
@pytest.mark.parametrize("spans", ["direct", "collector", "none"])
def test_each_way_and_both_at_once_give_each_event_once(collector: Collector, api: Client, events: str, spans: str) -> None:
    exporters = {"direct": lambda: HttpExporter(api.url, None), "collector": OtlpExporter}
    exporter = Both(*(make() for way, make in exporters.items() if events in (way, "both")))
    spans_to = {"direct": api.url, "collector": collector.endpoint, "none": None}[spans]
    with shop(exporter=exporter, spans_to=spans_to) as service:
        service.checkouts(12)
        service.flush()
        assert_exact(api, service, events=service.events)
        until(
            lambda: api.get("/api/intake").json["duplicates"] >= (0 if events == spans or "none" in spans else service.attempts)
        )


def test_a_service_that_sends_neither_is_unharmed_and_nothing_arrives(collector: Collector, api: Client) -> None:
    with shop(exporter="none") as service:
        service.checkouts(12)
        service.flush()
    assert collector.metric("receiver_accepted_spans") == collector.metric("receiver_accepted_log_records") == 0
    assert run_ids(api) == set()


@contextlib.contextmanager
def recorded() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A place that takes OTLP and keeps each request, to be sent again."""
    kept: list[tuple[str, bytes]] = []

    def take(request: Request, connection: Any) -> None:
        kept.append((request.line.split()[1], request.body))
        connection.sendall(reply(200).replace(b"application/json", b"application/x-protobuf"))

    sink = HttpSink()
    sink.answer = take
    sink.start()
    try:
        yield sink.url, kept
    finally:
        sink.stop()


def test_requests_in_any_order_late_and_twice_give_the_same_runs(
    collector: Collector, api: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(3)
    for _ in range(4):
        with recorded() as (url, requests):
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
            with shop(exporter="otlp", spans_to=url) as service:
                for _ in range(6):
                    service.checkout()
                    service.flush()
        again = [*requests, *requests]
        chance.shuffle(again)
        with contextlib.closing(Client(collector.endpoint)) as to_collector, contextlib.closing(Client(api.url)) as direct:
            for path, body in again:
                # By the Collector as a rule, and now and then straight to the server.
                sender = direct if chance.random() < 0.2 else to_collector
                assert sender.post(path, body, {"Content-Type": PROTOBUF}).status == 200
        assert_exact(api, service, events=service.events)


def test_a_start_that_comes_after_the_outcome_changes_nothing(collector: Collector, api: Client) -> None:
    ids = {"trace_id": bytes(15) + b"\1", "span_id": bytes(7) + b"\1"}
    span = traces(step("late"), **ids)
    began = logs(step("late") | {"failpath.step.status": "running"}, **ids)
    with contextlib.closing(Client(collector.endpoint)) as sender:
        assert sender.post("/v1/traces", span.SerializeToString(), {"Content-Type": PROTOBUF}).status == 200
        until(lambda: run_ids(api) == {"late"})
        assert sender.post("/v1/logs", began.SerializeToString(), {"Content-Type": PROTOBUF}).status == 200
    until(lambda: api.get("/api/intake").json["accepted"] == 2)
    found = {row["stepKey"]: row for row in api.get("/api/run", flow="checkout", run_id="late").json["steps"]}["charge-card"]
    assert found["status"] == "success"
    assert [attempt["status"] for attempt in found["attempts"]] == ["success"]


def test_generated_steps_of_many_senders_are_all_there(collector: Collector, api: Client, telemetrygen: Path) -> None:
    attributes = {"failpath.flow.slug": "checkout", "failpath.run.id": "generated", "failpath.step.key": "charge-card"}
    named = [part for key, value in attributes.items() for part in ("--telemetry-attributes", f'{key}="{value}"')]
    to = ("--otlp-http", "--otlp-endpoint", collector.endpoint.removeprefix("http://"), "--workers", "4")
    generate(telemetrygen, "traces", *to, "--traces", "50", *named)
    generate(telemetrygen, "traces", *to, "--traces", "50")
    generate(telemetrygen, "logs", *to, "--logs", "50")
    # A generated trace is two spans.
    until(lambda: api.get("/api/intake").json["accepted"] == 4 * 50 * 2)
    (found,) = (row for row in api.get("/api/run", flow="checkout", run_id="generated").json["steps"] if row["attempts"])
    assert len(found["attempts"]) == 400
    assert api.get("/api/intake").json["unmapped"] == 0
