"""``flows="strict"``: a flow or step that flows.json does not know raises where it is named, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.tracing import told

from failpath_otel import ConfigError, FailpathClient, FailpathError, FlowKey, UnknownKeyError
from failpath_otel.cli.group import cli
from failpath_otel.server.settings import Settings
from failpath_otel.testing import RecordingClient

FLOWS = {
    "flows": [
        {"slug": "checkout", "nodes": [{"sdkStepKey": "charge"}]},
        {"slug": "webhook", "nodes": [{"sdkStepKey": "apply-payment"}]},
    ]
}


@pytest.fixture
def flows_file(tmp_path: Path) -> Path:
    path = tmp_path / ".failpath" / "flows.json"
    path.parent.mkdir()
    path.write_text(json.dumps(FLOWS))
    return path


@pytest.fixture
def client(flows_file: Path) -> RecordingClient:
    return RecordingClient(flows=f"strict:{flows_file}")


def never() -> None:
    raise AssertionError("ran")


def test_known_keys_are_no_matter(client: RecordingClient) -> None:
    with client.run("checkout", "1") as run:
        run.step("charge", lambda: None)
        client.step("charge")(lambda: None)()
    assert told(client.events) == ["charge:running", "charge:success"] * 2


def test_an_unknown_flow_raises_at_run_with_the_nearest(client: RecordingClient, flows_file: Path) -> None:
    with pytest.raises(UnknownKeyError) as caught:
        client.run("chekcout")
    assert str(caught.value) == f"flow 'chekcout' is not in {flows_file} (did you mean 'checkout'?)"
    assert isinstance(caught.value, FailpathError)


def in_current_run(client: RecordingClient) -> None:
    with client.run("checkout"), client.step("apply-payment"):
        never()


FORMS: dict[str, Callable[[RecordingClient], object]] = {
    "call": lambda client: client.run("checkout").step("chrage", never),
    "block": lambda client: client.run("checkout").step("chrage"),
    "skip": lambda client: client.run("checkout").skip("chrage"),
    "decorator, at once": lambda client: client.step("chrage"),
    "decorator, another flow's step": in_current_run,
    "record_step": lambda client: client.record_step(flow_key="checkout", run_id="1", step_key="chrage", status="success"),
    "record_step, flow": lambda client: client.record_step(flow_key="x", run_id="1", step_key="charge", status="success"),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_unknown_key_raises_in_every_form_and_nothing_is_recorded(client: RecordingClient, form: str) -> None:
    with pytest.raises(UnknownKeyError, match="is not in"):
        FORMS[form](client)
    assert client.events == []


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_strict_alone_looks_for_the_file(flows_file: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    monkeypatch.chdir(flows_file.parent.parent)
    if by == "environment":
        monkeypatch.setenv("FAILPATH_FLOWS", "strict")
    client = RecordingClient(flows="strict" if by == "argument" else None)
    with pytest.raises(UnknownKeyError):
        client.run("chekcout")


def test_strict_without_a_file_is_a_config_error_that_says_how_to_name_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"found no .*flows\.json .*flows='strict:PATH'"):
        RecordingClient(flows="strict")


def test_strict_with_a_broken_file_is_a_config_error(flows_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flows_file.write_text("{nonsense")
    monkeypatch.chdir(flows_file.parent)
    with pytest.raises(ConfigError, match="not valid JSON"):
        RecordingClient(flows="strict")


def test_a_client_that_is_switched_off_raises_nothing(flows_file: Path) -> None:
    client = FailpathClient(enabled=False, flows=f"strict:{flows_file}")
    assert client.run("chekcout").step("chrage", lambda: 7) == 7
    client.step("chrage")(lambda: None)()


@pytest.mark.parametrize("asked", ["strict", "strict:{path}"])
def test_the_server_reads_the_same_variable_and_takes_the_path_of_it(
    flows_file: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    started: list[Settings] = []
    monkeypatch.setattr("failpath_otel.cli.serve.run_server", lambda settings, _: started.append(settings))
    monkeypatch.chdir(flows_file.parent)
    monkeypatch.setenv("FAILPATH_FLOWS", asked.format(path=flows_file))
    done = CliRunner().invoke(cli, ["serve", "--db", "runs.db"])
    assert (done.exit_code, done.output) == (0, "")
    assert [list(settings.flows.by_slug) for settings in started] == [["checkout", "webhook"]]


def test_flow_keys_stand_for_their_slugs(client: RecordingClient) -> None:
    checkout = FlowKey[str]("checkout")
    client.run(checkout, "1").step("charge", lambda: None)
    client.record_step(flow_key=checkout, run_id="1", step_key="charge", status="success")
    assert {event.flow_key for event in client.events} == {"checkout"}
    with pytest.raises(UnknownKeyError, match="did you mean 'checkout'"):
        client.run(FlowKey("chekcout"))


def test_flow_keys_are_equal_by_slug_and_are_no_text() -> None:
    one, other = FlowKey[str]("checkout"), FlowKey[str]("checkout")
    assert one == other
    assert len({one, other, FlowKey("webhook")}) == 2
    assert one != "checkout"
    assert (str(one), repr(one), one.slug) == ("checkout", "FlowKey('checkout')", "checkout")
