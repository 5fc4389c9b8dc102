"""``kill -9`` in the middle of ingest, again and again on one database: nothing that was acknowledged is missing."""

from __future__ import annotations

import http.client
import json
import threading

import pytest
from support.otlp_bodies import step, traces
from support.served import Client, event

KILLS = 20
SENDERS = 3


class Sender:
    """Sends batches until the server is gone, and remembers what was acknowledged; ``taken`` counts that of all senders."""

    def __init__(self, url: str, name: str, taken: threading.Semaphore) -> None:
        self.taken = taken
        self.acknowledged: list[list[dict[str, object]]] = []
        self._client = Client(url)
        self._name = name
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        for number in range(100_000):
            run_id = f"{self._name}-{number}"
            batch = [event(run_id, f"step-{n}", status) for n in range(3) for status in ("running", "success")]
            try:
                reply = self._client.send_events(*batch)
            except (OSError, http.client.HTTPException):
                break
            assert reply.status == 202
            self.acknowledged.append(batch)
            self.taken.release()
        self._client.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_acknowledged_event_is_missing_after_kill_9(start_server):
    """Twenty kills, each after another number of batches; after each restart all that was acknowledged before is known."""
    unchecked: list[dict[str, object]] = []
    total = 0
    for kill in range(KILLS + 1):
        server = start_server()
        if unchecked:
            receipt = server.send_events(*unchecked).json
            assert receipt == {"accepted": 0, "duplicates": len(unchecked), "rejected": []}
            total += len(unchecked)
        last_run = str(unchecked[-1]["runId"]) if unchecked else None
        if last_run:
            found = server.get("/api/run", flow="checkout", run_id=last_run).json
            assert {row["status"] for row in found["steps"]} == {"success"}
            listed = server.get("/api/runs", q=last_run).json["runs"]
            assert listed[0]["steps"]["success"] == 3
        if kill == KILLS:
            break
        taken = threading.Semaphore(0)
        senders = [Sender(server.url, f"kill-{kill}-{number}", taken) for number in range(SENDERS)]
        for _ in range(3 + 5 * kill):
            assert taken.acquire(timeout=60), "no batch was acknowledged for a minute"
        server.process.kill()
        for sender in senders:
            sender.thread.join(timeout=60)
        unchecked = [sent for sender in senders for batch in sender.acknowledged for sent in batch]
        assert unchecked, "nothing was acknowledged before the kill"
        server.end()
    assert total >= KILLS * 18


def test_spans_acknowledged_before_kill_9_are_there_after_it(start_server):
    server = start_server()
    reply = server.post("/v1/traces", traces(step("span-kept")).SerializeToString(), {"Content-Type": "application/x-protobuf"})
    assert reply.status == 200
    server.process.kill()
    server.end()
    again = start_server()
    stored = again.get("/api/run/events", flow="checkout", run_id="span-kept").json["events"]
    assert json.dumps(stored).count("span-kept") == 1
