"""`failpath-otel init`: what it writes, and that it overwrites nothing."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner, Result
from support.http_sink import always, http_sink
from support.served import event, in_thread
from support.tls import VARIABLES, Authority, https_sink

from failpath_otel.cli.group import cli
from failpath_otel.errors import ConfigError
from failpath_otel.flows import Edge, Flow, Node, load_flows, parse_flows
from failpath_otel.rules.file import SCHEMA_PATH, load_rules
from failpath_otel.server.settings import Settings
from failpath_otel.starting import as_document, write_new

SHOP = """
from failpath_otel import FailpathClient
client = FailpathClient()
def checkout(order, name):
    run = client.run("checkout", run_id=order)
    if order:
        run.step("validate", print)
    with run.step("charge"):
        run.step("validate", print)
    run.step(name, print)
    client.record_step(flow_key="refund", run_id="1", step_key="pay back", status="success")
@client.step("decorated")
def decorated(): ...
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FAILPATH_TOKEN", raising=False)
    return tmp_path


def init(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["init", *arguments])


def written(folder: Path) -> dict[str, list[str]]:
    flows = load_flows(folder / ".failpath" / "flows.json")
    return {flow.slug: [node.step_key for node in flow.nodes] for flow in flows}


def test_without_options_it_writes_an_example_and_says_what_to_do_next(folder: Path) -> None:
    done = init()
    assert done.exit_code == 0
    assert done.output.startswith(".failpath/flows.json written: 1 flows, 3 steps: an example")
    assert [line.split()[0] for line in done.output.splitlines() if line.startswith("  ")] == [
        "failpath-otel",
        "FAILPATH_DEV_ENDPOINT=http://127.0.0.1:4600",
        "failpath-otel",
    ]
    assert written(folder) == {"checkout": ["validate-cart", "charge-card", "send-receipt"]}


@pytest.mark.parametrize("present", ["", "anything", '{"flows": []}'])
def test_a_file_that_is_there_is_never_touched(present: str, folder: Path) -> None:
    path = folder / ".failpath" / "flows.json"
    path.parent.mkdir()
    path.write_text(present)
    done = init()
    assert (done.exit_code, path.read_text()) == (2, present)
    assert "is there already and is left as it is" in done.output
    assert [file.name for file in path.parent.iterdir()] == ["flows.json"]


def test_a_link_that_leads_nowhere_is_not_written_through(folder: Path) -> None:
    (folder / ".failpath").mkdir()
    (folder / ".failpath" / "flows.json").symlink_to(folder / "elsewhere.json")
    assert init().exit_code == 2
    assert not (folder / "elsewhere.json").exists()


def test_where_one_file_cannot_be_written_none_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    new = tmp_path / "new" / "a.json"
    with pytest.raises(ConfigError, match=r"cannot be written: .*; nothing was written"):
        write_new({new: "{}", tmp_path / "file" / "b.json": "{}"})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_made_is_a_clear_error(folder: Path) -> None:
    (folder / ".failpath").write_text("")
    done = init()
    assert done.exit_code == 2
    assert "cannot be written" in done.output


def test_a_file_further_up_no_longer_counts_which_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init()
    (folder / "service").mkdir()
    monkeypatch.chdir(folder / "service")
    assert "no longer is" in init().output


def test_names_that_say_no_more_than_the_key_are_left_out_and_the_rest_comes_back() -> None:
    flow = Flow("s", "s", (Node("a", "a"), Node("ä", "Ä!")), (Edge("ä", "a"),))
    text = as_document([flow])
    assert json.loads(text)["flows"][0]["nodes"] == [{"sdkStepKey": "a"}, {"sdkStepKey": "ä", "label": "Ä!"}]
    assert list(parse_flows(json.loads(text))) == [flow]


# Rules


def test_rules_are_written_for_each_step_and_can_be_read(folder: Path) -> None:
    done = init("--rules")
    assert done.exit_code == 0, done.output
    rules = load_rules(folder / ".failpath" / "spans.json")
    assert [(rule.flow, rule.step, rule.name) for rule in rules] == [
        ("checkout", key, key) for key in ("validate-cart", "charge-card", "send-receipt")
    ]
    schema = json.loads(SCHEMA_PATH.read_text())
    jsonschema.validate(json.loads((folder / ".failpath" / "spans.json").read_text()), schema)


def test_rules_for_flows_that_are_there_leave_these_as_they_are(folder: Path) -> None:
    (folder / "shop.py").write_text(SHOP)
    init("--from-code", "shop.py")
    before = (folder / ".failpath" / "flows.json").read_bytes()
    done = init("--rules")
    assert (done.exit_code, "3 rules" in done.output) == (0, True), done.output
    assert {rule.flow for rule in load_rules(folder / ".failpath" / "spans.json")} == {"checkout", "refund"}
    assert (folder / ".failpath" / "flows.json").read_bytes() == before


def test_where_rules_are_there_no_flows_are_written_either(folder: Path) -> None:
    (folder / ".failpath").mkdir()
    (folder / ".failpath" / "spans.json").write_text("mine")
    assert init("--rules").exit_code == 2
    assert [file.read_text() for file in (folder / ".failpath").iterdir()] == ["mine"]


# From code


def test_flows_and_steps_of_code_are_written_in_their_order(folder: Path) -> None:
    (folder / "shop.py").write_text(SHOP)
    done = init("--from-code", ".")
    assert done.exit_code == 0, done.output
    assert written(folder) == {"checkout": ["validate", "charge"], "refund": ["pay back"]}
    assert "1 keys are known only when the code runs" in done.output
    assert "is not known, and they are not written: decorated" in done.output


def test_a_step_without_a_flow_is_of_the_only_one_there_is(folder: Path) -> None:
    (folder / "shop.py").write_text(SHOP.replace("refund", "checkout"))
    init("--from-code", "shop.py")
    assert written(folder) == {"checkout": ["validate", "charge", "pay back", "decorated"]}


@pytest.mark.parametrize("arguments", [("--from-code", "."), ("--from-code", "nowhere")])
def test_code_without_a_flow_writes_nothing(arguments: tuple[str, ...], folder: Path) -> None:
    (folder / "broken.py").write_text("def")
    assert init(*arguments).exit_code == 2
    assert not (folder / ".failpath").exists()


# From a server


def test_flows_that_a_server_has_seen_are_written_in_the_order_in_which_they_came(folder: Path) -> None:
    with in_thread(Settings(db=str(folder / "runs.db"), port=0, token="t")) as server:
        server.send_events(event("1", "ship & go"), event("1", "charge"), event("2", "refund", flowKey="Rück/zahlung"))
        refused = init("--from-server", server.url)
        assert (refused.exit_code, "--token" in refused.output) == (2, True)
        assert init("--from-server", server.url, "--token", "t").exit_code == 0
    assert written(folder) == {"Rück/zahlung": ["refund"], "checkout": ["ship & go", "charge"]}


def test_a_server_that_knows_no_flow_writes_nothing(folder: Path) -> None:
    with in_thread(Settings(db=str(folder / "runs.db"), port=0)) as server:
        done = init("--from-server", server.url)
    assert (done.exit_code, "knows no flow yet" in done.output) == (2, True)
    assert not (folder / ".failpath").exists()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"<html>", "answers otherwise"),
        (200, b'{"flows": [{}]}', "answers otherwise"),
        (404, b"{}", "answered 404"),
        (302, b"", "answered 302"),
    ],
)
def test_whatever_else_answers_writes_nothing(status: int, body: bytes, said: str, folder: Path) -> None:
    with http_sink() as sink:
        sink.answer = always(status, body)
        done = init("--from-server", sink.url)
    assert (done.exit_code, said in done.output) == (2, True), done.output
    assert not (folder / ".failpath").exists()


def test_a_server_with_tls_is_asked_with_the_certificates_of_the_environment(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers, clients = Authority(tmp_path / "servers"), Authority(tmp_path / "clients")
    certificate, key = clients.signed("developer.test")
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    charge = {"stepKey": "charge", "label": "Charge"}
    flows = {"flows": [{"slug": "checkout", "name": "Checkout", "nodes": [charge], "edges": []}]}
    with https_sink(servers.server(clients_of=clients)) as sink:
        sink.answer = always(200, json.dumps(flows).encode())
        assert "certificate verify failed" in init("--from-server", sink.url).output
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(servers.file))
        monkeypatch.setenv("FAILPATH_CLIENT_CERTIFICATE", str(certificate))
        assert "FAILPATH_CLIENT_CERTIFICATE must hold" in init("--from-server", sink.url).output
        monkeypatch.setenv("FAILPATH_CLIENT_KEY", str(key))
        assert init("--from-server", sink.url).exit_code == 0
    assert written(folder) == {"checkout": ["charge"]}


def test_nobody_there_and_a_wrong_address_are_clear_errors(folder: Path) -> None:
    assert "cannot be reached" in init("--from-server", "http://127.0.0.1:9").output
    assert "must be an http:// or https:// URL" in init("--from-server", "localhost:4600").output
    assert "give one of them" in init("--from-server", "http://127.0.0.1:9", "--from-code", ".").output
