"""Bridges as processes before a real second server: killed, stopped, left without the server behind."""

from __future__ import annotations

import http.client
import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.endings import assert_ends_in_time
from support.http_sink import HttpSink, always, hang
from support.otlp_bodies import PROTOBUF, step, traces
from support.served import Client, Served, event, start, until

KILLS = 4
SENDERS = 3
TEN_MINUTES = """
from failpath_otel.server import serve
from failpath_otel.server.forward import forwarder
forwarder.CLOSE_SECONDS = forwarder.REQUEST_SECONDS = serve.GRACE_SECONDS = serve.LAST_MOMENT_SECONDS = 600
"""
"""What a bridge runs first that waits at its end for what is on its way, as long as that takes."""

StartServer = Callable[..., Served]


@pytest.fixture(params=["with a store", "without a store"])
def keeping(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The options by which the bridge keeps events, or not."""
    return () if request.param == "with a store" else ("--no-store",)


@pytest.fixture
def behind(tmp_path: Path) -> Any:
    """The server behind: a real one, with a database of its own."""
    served = start(tmp_path / "behind")
    yield served
    served.end()


class Sender:
    """Sends batches again and again until they are acknowledged, over kills and refusals, and remembers which were."""

    def __init__(self, name: str, url: Callable[[], str]) -> None:
        self.acknowledged: list[dict[str, Any]] = []
        self.batches = 0
        self.refusals = 0
        self._name = name
        self._url = url
        self._enough = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def end(self) -> None:
        """Ends once the batch under way is acknowledged."""
        self._enough.set()
        self.thread.join(timeout=60)
        assert not self.thread.is_alive()

    def _run(self) -> None:
        while not self._enough.is_set():
            run_id = f"{self._name}-{self.batches}"
            batch = [event(run_id, f"step-{n}", status) for n in range(3) for status in ("running", "success")]
            until(lambda sent=batch: self._sent(sent), 50)
            self.acknowledged += batch
            self.batches += 1

    def _sent(self, batch: list[dict[str, Any]]) -> bool:
        client = Client(self._url())
        try:
            reply = client.send_events(*batch)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            client.close()
        assert reply.status in (202, 503), reply.body
        self.refusals += reply.status == 503
        return reply.status == 202 and reply.json["rejected"] == []


def assert_all_there(server: Client, senders: list[Sender]) -> None:
    """The server knows each acknowledged event, and each run is whole."""
    for sender in senders:
        for at in range(0, len(sender.acknowledged), 600):
            part = sender.acknowledged[at : at + 600]
            assert server.send_events(*part).json == {"accepted": 0, "duplicates": len(part), "rejected": []}
        last = server.get("/api/run", flow="checkout", run_id=sender.acknowledged[-1]["runId"]).json
        assert [row["attempts"][0]["status"] for row in last["steps"]] == ["success"] * 3


@pytest.mark.slow
def test_a_killed_bridge_loses_nothing_that_it_acknowledged(behind, start_server, keeping):
    bridge = [start_server(*keeping, "--forward-to", behind.url)]
    senders = [Sender(f"s-{n}", lambda: bridge[-1].url) for n in range(SENDERS)]
    for kill in range(KILLS):
        before = [sender.batches for sender in senders]
        until(lambda seen=before: all(s.batches > n + 5 for s, n in zip(senders, seen, strict=True)), 60)
        bridge[-1].process.kill()
        bridge[-1].end()
        bridge.append(start_server(*keeping, "--forward-to", behind.url))
        del kill
    for sender in senders:
        sender.end()
    assert_all_there(behind, senders)
    if not keeping:
        assert_all_there(bridge[-1], senders)


@pytest.mark.slow
def test_a_killed_server_behind_loses_nothing_that_the_bridge_acknowledged(behind, start_server, keeping, tmp_path):
    bridge = start_server(*keeping, "--forward-to", behind.url)
    port = behind.url.rpartition(":")[2]
    senders = [Sender(f"s-{n}", lambda: bridge.url) for n in range(SENDERS)]
    for _ in range(KILLS):
        before = [sender.batches for sender in senders]
        until(lambda seen=before: all(s.batches > n + 5 for s, n in zip(senders, seen, strict=True)), 60)
        behind.process.kill()
        behind.end()
        behind = start(tmp_path / "behind", "--port", port)
    for sender in senders:
        sender.end()
    assert_all_there(behind, senders)
    behind.end()


def test_spans_and_events_are_the_same_run_behind_the_bridge(behind, start_server, keeping):
    bridge = start_server(*keeping, "--forward-to", behind.url)
    spans = traces(step("r", "validate-cart"), step("r", "charge-card", **{"failpath.step.status": "error"}))
    assert bridge.post("/v1/traces", spans.SerializeToString(), {"Content-Type": PROTOBUF}).status == 200
    assert bridge.send_events(event("r", "receipt", "skipped", skipReason="not paid")).status == 202
    found = behind.get("/api/run", flow="checkout", run_id="r").json
    assert {row["stepKey"]: row["status"] for row in found["steps"]} == {
        "validate-cart": "success",
        "charge-card": "error",
        "receipt": "skipped",
    }
    assert [row["skipReason"] for row in found["steps"] if row["stepKey"] == "receipt"] == ["not paid"]
    if not keeping:
        own = bridge.get("/api/run", flow="checkout", run_id="r").json
        assert {key: own[key] for key in ("status", "counts")} == {key: found[key] for key in ("status", "counts")}


def test_a_bridge_may_stand_before_a_bridge(behind, start_server):
    second = start_server("--no-store", "--forward-to", behind.url)
    first = start_server("--no-store", "--forward-to", second.url)
    assert first.send_events(event("far")).json["accepted"] == 1
    assert behind.get("/api/run", flow="checkout", run_id="far").status == 200


def test_the_ingest_key_of_the_server_behind_is_the_project_key(tmp_path, start_server):
    behind = start(tmp_path / "behind", "--ingest-key", "fp_project_1")
    try:
        wrong = start_server("--no-store", "--forward-to", behind.url, env={"FAILPATH_PROJECT_KEY": "fp_project_2"})
        right = start_server("--no-store", "--forward-to", behind.url, env={"FAILPATH_PROJECT_KEY": "fp_project_1"})
        held, taken = wrong.send_events(event("r")), right.send_events(event("r"))
        assert (held.status, taken.status) == (503, 202)
        assert int(held.headers["Retry-After"]) > 50
        way_out = "set the right project key with --forward-key or FAILPATH_PROJECT_KEY"
        until(lambda: wrong.log.read_text().count(way_out) == 1)  # it is logged after the answer is on its way
    finally:
        behind.end()


def _send_in_background(url: str, answers: list[object], *events: dict[str, Any]) -> threading.Thread:
    def send() -> None:
        client = Client(url)
        try:
            reply = client.send_events(*events)
            answers.append((reply.status, reply.headers["Retry-After"]))
        except (OSError, http.client.HTTPException) as error:
            answers.append(type(error).__name__)
        client.close()

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("state", ["hangs", "is down"])
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_bridge_in_time_and_senders_know_that_nothing_was_taken(
    start_server, beside, sink, keeping, state, sig
):
    if state == "hangs":
        sink.answer = hang(sink)
    else:
        sink.answer = always(503)
    bridge = start_server(*keeping, "--forward-to", sink.url)
    answers: list[object] = []
    sender = _send_in_background(bridge.url, answers, event("r"))
    sink.wait_for(lambda seen: bool(seen.requests))
    assert_ends_in_time(bridge, beside, sig)
    sender.join(timeout=30)
    assert answers == [(503, "1")]
    assert sink.stored == {}
    assert bridge.log.read_text() == ""  # nothing had to be cancelled for taking too long


def test_what_is_on_its_way_when_a_signal_comes_is_acknowledged_if_it_arrives(start_server, sink, keeping):
    def answer(request, connection):
        stopping.wait(60)
        connection.sendall(b"HTTP/1.1 202 X\r\nContent-Length: %d\r\n\r\n%s" % (len(body := sink.store(request)), body))

    stopping = threading.Event()
    sink.answer = answer
    bridge = start_server(*keeping, "--forward-to", sink.url, before=TEN_MINUTES)
    answers: list[object] = []
    sender = _send_in_background(bridge.url, answers, event("r"))
    sink.wait_for(lambda seen: bool(seen.requests))
    bridge.process.send_signal(signal.SIGTERM)
    until(lambda: _refuses(bridge))
    stopping.set()
    sender.join(timeout=30)
    assert bridge.process.wait(timeout=60) == 0
    assert answers == [(202, None)]
    assert len(sink.stored) == 1


def _refuses(server: Served) -> bool:
    connection = Client(server.url).connect()
    try:
        connection.connect()
    except ConnectionRefusedError:
        return True
    finally:
        connection.close()
    return False


def _resident_bytes(process_id: int) -> int:
    for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")
def test_memory_does_not_grow_while_the_server_behind_is_down(start_server, sink):
    sink.answer = always(503, Retry_After="3000")
    bridge = start_server("--no-store", "--forward-to", sink.url)
    body = json.dumps({"events": [event(f"r-{n}", metadata={"text": "x" * 1000}) for n in range(1000)]}).encode()

    def send(times: int) -> int:
        for _ in range(times):
            assert bridge.post("/v1/events", body).status == 503
        return _resident_bytes(bridge.process.pid)

    warm = send(20)
    assert send(80) - warm < 16 * len(body)  # 80 times that came in
    assert bridge.get("/api/intake").json["forward"]["waiting"] == 0
    assert len(sink.requests) <= 2  # what was sent is more than one request holds


def test_an_outage_is_two_lines_in_the_log_whatever_comes_in(start_server, sink: HttpSink):
    bridge = start_server("--no-store", "--forward-to", sink.url)
    sink.stop()
    for n in range(30):
        reply = bridge.send_events(event(f"r-{n}"))
        assert (reply.status, int(reply.headers["Retry-After"]) >= 1) == (503, True)
        assert "Send these again later" in reply.json["detail"]
    sink.start()
    until(lambda: bridge.send_events(event("r")).status == 202, 20)
    down, back = bridge.log.read_text().splitlines()
    assert "do not go on" in down
    assert "go on" in back
    assert "again" in back
