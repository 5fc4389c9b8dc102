"""Flows and steps that flows.json does not know are recorded, and warned of once each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.tracing import told

from failpath_otel import ConfigError, FailpathClient, Flows
from failpath_otel.testing import RecordingClient


@pytest.fixture
def flows_file(tmp_path: Path) -> Path:
    path = tmp_path / ".failpath" / "flows.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"flows": [{"slug": "checkout", "nodes": [{"sdkStepKey": "charge"}]}]}))
    return path


def _messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_known_keys_are_no_matter(flows_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = RecordingClient(flows=flows_file)
    client.run("checkout", "1").step("charge", lambda: None)
    assert _messages(caplog) == []


def test_an_unknown_step_is_recorded_and_warned_of_once(flows_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = RecordingClient(flows=flows_file)
    for _ in range(3):
        client.run("checkout", "1").step("chrage", lambda: None)
    assert told(client.events) == ["chrage:running", "chrage:success"] * 3
    assert _messages(caplog) == [
        f"step 'chrage' of flow 'checkout' is not in {flows_file} (did you mean 'charge'?); it is recorded as discovered"
    ]


def test_an_unknown_flow_is_recorded_and_warned_of_once(flows_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = RecordingClient(flows=flows_file)
    for _ in range(3):
        client.run("chekcout", "1").step("charge", lambda: None)
    assert len(client.events) == 6
    assert _messages(caplog) == [
        f"flow 'chekcout' is not in {flows_file} (did you mean 'checkout'?); it is recorded as discovered"
    ]


def test_where_nothing_known_is_like_it_nothing_is_suggested(flows_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    RecordingClient(flows=flows_file).run("zzz", "1")
    assert _messages(caplog) == [f"flow 'zzz' is not in {flows_file}; it is recorded as discovered"]


@pytest.mark.parametrize("form", ["block", "decorator", "skip", "record_step"])
def test_every_form_of_a_step_is_looked_at(flows_file: Path, caplog: pytest.LogCaptureFixture, form: str) -> None:
    client = RecordingClient(flows=flows_file)
    run = client.run("checkout", "1")
    if form == "block":
        with run.step("chrage"):
            pass
    elif form == "decorator":
        with run:
            client.step("chrage")(lambda: None)()
    elif form == "skip":
        run.skip("chrage")
    else:
        client.record_step(flow_key="checkout", run_id="1", step_key="chrage", status="success")
    assert len(_messages(caplog)) == 1
    assert "'chrage'" in caplog.text


def test_the_file_is_looked_for_from_the_working_directory_upward(
    flows_file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = flows_file.parent.parent / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    RecordingClient().run("checkout", "1").skip("chrage")
    assert "'chrage'" in caplog.text


def test_flows_false_looks_for_nothing(
    flows_file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(flows_file.parent.parent)
    RecordingClient(flows=False).run("checkout", "1").skip("chrage")
    assert _messages(caplog) == []


def test_a_broken_file_that_was_merely_found_is_warned_of_and_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".failpath").mkdir()
    (tmp_path / ".failpath" / "flows.json").write_text("{nonsense")
    monkeypatch.chdir(tmp_path)
    client = RecordingClient()
    client.run("any", "1").skip("any")
    assert told(client.events) == ["any:skipped"]
    assert "flows are not known" in caplog.text


@pytest.mark.parametrize("content", [None, "{nonsense", "[]"])
def test_a_file_that_was_asked_for_must_be_usable(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "flows.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match="flows file"):
        FailpathClient(exporter="memory", flows=path)


def test_a_working_directory_that_is_gone_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    client = RecordingClient()
    monkeypatch.chdir(tmp_path)
    client.run("any", "1").skip("any")
    assert told(client.events) == ["any:skipped"]


def test_flows_may_be_given_as_an_object(caplog: pytest.LogCaptureFixture) -> None:
    RecordingClient(flows=Flows()).run("any", "1").skip("any")
    assert _messages(caplog) == []
