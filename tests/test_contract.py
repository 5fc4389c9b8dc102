"""Client and server hold to one wire: what the exporter sends is what the golden file shows, and what the server takes."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from support.golden import ANSWER, EVENTS, REQUEST
from support.served import in_thread

from failpath_otel import HttpExporter, RejectedError
from failpath_otel.events.wire import decode_event
from failpath_otel.server.settings import Settings


class Sink(HTTPServer):
    """Keeps what is posted and answers with the golden answer."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.posted: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.path, dict(self.headers), body))
        self.send_response(202)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join(timeout=5)


def test_the_exporter_posts_the_golden_body_and_reads_the_golden_answer(sink: Sink) -> None:
    exporter = HttpExporter(sink.url, "fp_project_1")
    with pytest.raises(RejectedError) as caught:
        exporter.export(EVENTS, timeout_millis=5000)
    exporter.close()
    ((path, headers, body),) = sink.posted
    assert path == "/v1/events"
    assert (headers["Content-Type"], headers["Content-Encoding"]) == ("application/json", "gzip")
    assert headers["Authorization"] == "Bearer fp_project_1"
    assert json.loads(gzip.decompress(body)) == json.loads(REQUEST)
    assert caught.value.rejected == {item["eventId"]: item["reason"] for item in json.loads(ANSWER)["rejected"]}


def test_the_server_takes_what_the_exporter_sends_and_gives_it_back_whole(tmp_path: Path) -> None:
    with in_thread(Settings(db=str(tmp_path / "runs.db"), port=0)) as server:
        exporter = HttpExporter(server.url)
        exporter.export(EVENTS, timeout_millis=5000)
        exporter.close()
        again = server.post("/v1/events", REQUEST)
        assert (again.status, again.json) == (202, {"accepted": 0, "duplicates": len(EVENTS), "rejected": []})
        assert again.json.keys() == json.loads(ANSWER).keys()
        runs = {(event.flow_key, event.run_id) for event in EVENTS}
        stored = [
            decode_event(json.dumps(event).encode())
            for flow, run_id in runs
            for event in server.get("/api/run/events", flow=flow, run_id=run_id).json["events"]
        ]
    assert sorted(stored, key=lambda event: event.event_id) == sorted(EVENTS, key=lambda event: event.event_id)
