from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.delivery import event

from failpath_otel import FailpathClient
from failpath_otel.errors import RejectedError
from failpath_otel.events.wire import decode_event
from failpath_otel.exporters import JsonlExporter

Client = Callable[..., FailpathClient]


def test_each_line_is_an_event_as_on_the_wire(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "events.jsonl"
    events = [event(1, "running"), event(2, "error"), event(3, metadata={"a": ["é", "\u2028", None]})]
    exporter = JsonlExporter(path)
    exporter.export(events[:2], timeout_millis=100)
    exporter.export(events[2:], timeout_millis=100)
    exporter.close()
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert [decode_event(line) for line in lines] == [decode_event(json.dumps(json.loads(line)).encode()) for line in lines]
    assert [decode_event(line).event_id for line in lines] == [each.event_id for each in events]


def test_lines_are_appended_and_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for number in (1, 2):
        JsonlExporter(str(path)).export([event(number)], timeout_millis=100)
    assert len(path.read_text().splitlines()) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_event_that_cannot_be_encoded_does_not_cost_its_neighbours(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    broken = event(2, timestamp=10**30)
    with pytest.raises(RejectedError) as caught:
        JsonlExporter(path).export([event(1), broken, event(3)], timeout_millis=100)
    assert set(caught.value.rejected) == {broken.event_id}
    assert len(path.read_text().splitlines()) == 2


def test_a_stream_that_lacks_characters_gets_ascii_json() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    JsonlExporter(stream).export([event(1, metadata={"a": "é\u2028😀"}), event(2)], timeout_millis=100)
    lines = raw.getvalue().splitlines()
    assert len(lines) == 2
    assert json.loads(lines[0])["metadata"] == {"a": "é\u2028😀"}


def test_without_a_target_it_is_the_standard_output_of_the_moment(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    failpath = client(exporter="jsonl")
    failpath.run("checkout", "r1").step("pay", lambda: None)
    assert failpath.flush()
    assert [json.loads(line)["status"] for line in capsys.readouterr().out.splitlines()] == ["running", "success"]


def test_the_path_comes_from_the_option_or_the_environment(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    monkeypatch.setenv("FAILPATH_EXPORTER", f"jsonl:{second}")
    for failpath in (client(exporter=f"jsonl:{first}"), client()):
        failpath.run("checkout", "r1").skip("pay")
        assert failpath.flush()
    assert len(first.read_text().splitlines()) == len(second.read_text().splitlines()) == 1


def test_a_path_that_cannot_be_written_counts_its_events_as_rejected(client: Client, tmp_path: Path) -> None:
    failpath = client(exporter=f"jsonl:{tmp_path}")
    failpath.run("checkout", "r1").skip("pay")
    assert failpath.flush().dropped == {"rejected": 1}


@pytest.mark.skipif(os.name == "nt", reason="appending is not atomic there")
def test_several_processes_may_append_to_one_path(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append = """
import sys
from failpath_otel.events.step import StepEvent
from failpath_otel.exporters import JsonlExporter

path, first = sys.argv[1], int(sys.argv[2])
exporter = JsonlExporter(path)
for n in range(first, first + 500, 50):
    made = {"flow_key": "f", "run_id": "1", "step_key": "s", "status": "success", "metadata": {"x": "y" * 500}}
    exporter.export([StepEvent(event_id=str(i), timestamp=i, **made) for i in range(n, n + 50)], timeout_millis=100)
"""
    processes = [subprocess.Popen([sys.executable, "-c", append, str(path), str(first)]) for first in (0, 1000)]
    assert [process.wait(60) for process in processes] == [0, 0]
    lines = path.read_text().splitlines()
    assert len(lines) == 1000
    for line in lines:
        json.loads(line)
