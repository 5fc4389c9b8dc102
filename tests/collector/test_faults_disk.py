"""The disk under a queue: full, damaged, or wanted by two. What was acknowledged arrives; what cannot work says so."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest
from support.collector import Collector, StartCollector
from support.otlp_backend import Gate, OtlpBackend
from support.otlp_bodies import PROTOBUF, step, traces
from support.served import Client, until
from support.shop import run_ids

SOON = ("--config", "yaml:exporters::otlp_http/failpath::retry_on_failure: {initial_interval: 50ms, max_interval: 200ms}")
FULL = ("--config", "yaml:extensions::file_storage::max_size: 300000")


def send(collector: Collector, run_id: str, number: int) -> int:
    """Sends a large span of a run and gives the status of the answer."""
    request = traces(step(run_id, note="x" * 5000), trace_id=bytes([number + 1]) * 16)
    with contextlib.closing(Client(collector.endpoint)) as sender:
        return sender.post("/v1/traces", request.SerializeToString(), {"Content-Type": PROTOBUF}).status


def is_taken(collector: Collector, run_id: str, number: int) -> bool:
    """Sends as `send` does. A sender that is refused waits; one that does not keeps the disk full."""
    return send(collector, run_id, number) == 200 or threading.Event().wait(0.25)


def test_a_full_disk_refuses_in_a_way_that_is_tried_again_and_gives_back_what_it_took(
    start_collector: StartCollector, gated: Gate, backend: OtlpBackend, api: Client
) -> None:
    gated.close()
    env = {"FAILPATH_ENDPOINT": gated.url, "BACKEND_ENDPOINT": backend.url}
    gateway = start_collector("gateway.yaml", env, arguments=(*SOON, *FULL))
    answers = {f"run-{number}": send(gateway, f"run-{number}", number) for number in range(80)}
    assert set(answers.values()) == {200, 503}
    taken = {run_id for run_id, status in answers.items() if status == 200}
    gated.open()
    until(lambda: run_ids(api) >= taken)
    # Of what was refused, one of the two queues may have had room for it: a sender that tries again sends it twice.
    for number, run_id in enumerate(answers):
        if run_id not in taken:
            until(lambda number=number, run_id=run_id: is_taken(gateway, run_id, number), 90)
    until(lambda: run_ids(api) == answers.keys())
    assert {len(api.get("/api/run/events", flow="checkout", run_id=run_id).json["events"]) for run_id in answers} == {1}


def test_a_damaged_queue_keeps_a_collector_from_starting_so_that_it_is_seen(
    start_collector: StartCollector, gated: Gate, backend: OtlpBackend, api: Client, tmp_path: Path
) -> None:
    gated.close()
    env = {"FAILPATH_ENDPOINT": gated.url, "BACKEND_ENDPOINT": backend.url}
    gateway = start_collector("gateway.yaml", env, arguments=SOON)
    assert send(gateway, "before", 1) == 200
    gateway.kill()
    file = gateway.folder / "storage" / "exporter_otlp_http_failpath_traces"
    file.write_bytes(b"\xff" * (file.stat().st_size // 2))
    with pytest.raises(AssertionError, match="invalid database"):
        gateway.start()
    file.rename(tmp_path / "damaged")
    gated.open()
    gateway.start()
    assert send(gateway, "after", 2) == 200
    until(lambda: run_ids(api) == {"after"})


def test_two_collectors_cannot_share_a_folder(start_collector: StartCollector, api: Client, backend: OtlpBackend) -> None:
    env = {"FAILPATH_ENDPOINT": api.url, "BACKEND_ENDPOINT": backend.url}
    first = start_collector("gateway.yaml", env)
    with pytest.raises(AssertionError, match=r"failed to start .* exporter: timeout"):
        start_collector("gateway.yaml", {**env, "OTELCOL_STORAGE": str(first.folder / "storage")})
    assert send(first, "r1", 1) == 200
    until(lambda: run_ids(api) == {"r1"})
