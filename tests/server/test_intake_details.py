"""What ``/api/intake`` tells people who wonder why nothing arrives: who called, what was refused, what is called otherwise."""

from __future__ import annotations

import pytest
from support.otlp_bodies import JSON, PROTOBUF, json_span, json_traces
from support.served import Client, event, in_thread, until

from failpath_otel.flows import parse_flows
from failpath_otel.nearest import nearest
from failpath_otel.server.intake.diagnostics import MAX_CHARS, IntakeDiagnostics
from failpath_otel.server.otlp.item import MAX_KINDS
from failpath_otel.server.settings import Settings

FLOWS = parse_flows(
    {
        "flows": [
            {"slug": "checkout", "nodes": [{"sdkStepKey": "validate-cart"}, {"sdkStepKey": "charge-card"}]},
            {"slug": "refund", "nodes": [{"sdkStepKey": "pay-back"}]},
        ]
    }
)


@pytest.fixture
def server(tmp_path):
    with in_thread(Settings(str(tmp_path / "runs.db"), FLOWS, port=0, retain_seconds=3600, max_size_bytes=10**8)) as client:
        yield client


def intake(client):
    return client.get("/api/intake").json


def test_before_anything_came_there_is_only_the_start(server):
    counts = intake(server)
    assert counts["since"].endswith("Z")
    assert (counts["lastRequest"], counts["refusals"], counts["unknown"], counts["incompleteSamples"]) == (None, [], [], [])
    assert counts["retention"] == {
        "retainSeconds": 3600,
        "maxSizeBytes": 10**8,
        "sizeBytes": counts["retention"]["sizeBytes"],
        "runs": 0,
        "oldestRunAt": None,
        "deletedRuns": 0,
    }
    assert 0 < counts["retention"]["sizeBytes"] < 10**6


def test_the_last_request_is_told_with_its_answer_and_its_sender(server):
    body = {"events": [event("r"), {"eventId": "bad"}]}
    server.post("/v1/events", body, {"User-Agent": "shop/1.0"})
    last = intake(server)["lastRequest"]
    assert (last["path"], last["status"], last["items"], last["agent"]) == ("/v1/events", 202, 2, "shop/1.0")
    assert last["at"] >= intake(server)["since"]
    server.post("/v1/traces", b"{", {"Content-Type": "text/plain", "User-Agent": "x" * 1000})
    last = intake(server)["lastRequest"]
    assert (last["path"], last["status"], last["items"], last["agent"]) == ("/v1/traces", 415, None, "x" * MAX_CHARS)
    kept = intake(server)["retention"]
    assert (kept["runs"], kept["oldestRunAt"]) == (1, "2026-03-01T12:00:01.000000Z")


def test_refusals_are_grouped_by_reason_items_apart_from_whole_requests(server):
    for number in range(3):
        server.send_events(event("r", eventId=f"e{number}", runId=""), event("r", f"s{number}", stepKey="x" * (600 + number)))
    server.post("/v1/events", b"hello", {"Content-Type": "text/plain"})
    server.post("/v1/events", b"hello", {"Content-Type": "text/html"})
    refusals = {(one["reason"], one["status"]): one for one in intake(server)["refusals"]}
    empty = refusals["Expected <text> of length >= <n> - at <text>", None]
    assert (empty["count"], empty["sample"]) == (3, "Expected `str` of length >= 1 - at `$.runId`")
    long = refusals["Expected <text> of length <= <n> - at <text>", None]
    assert long["count"] == 3
    whole = refusals["Content-Type <text> is not supported here; send application/json.", 415]
    assert (whole["count"], "text/html" in whole["sample"]) == (2, True)
    assert len(refusals) == 3
    assert intake(server)["refusals"][0] == whole


def test_a_request_without_the_key_is_noticed_though_it_gets_nowhere(tmp_path):
    with in_thread(Settings(str(tmp_path / "runs.db"), port=0, ingest_key="k3y")) as server:
        assert server.send_events(event("r")).status == 401
        assert server.post("/v1/logs", b"", {"Host": "evil.example"}).status == 421
        counts = intake(server)
        assert (counts["lastRequest"]["path"], counts["lastRequest"]["status"]) == ("/v1/logs", 421)
        assert [one["status"] for one in counts["refusals"]] == [421, 401]
        assert "ingest key" in counts["refusals"][1]["sample"]


def test_names_that_no_flow_declares_are_told_with_the_nearest_that_one_does(server):
    server.send_events(
        event("r", "chargeCard"),
        event("r", "validate-cart"),
        event("r", "zzz"),
        event("r", "pay-back", flowKey="Refunds"),
        event("r", "x", flowKey="night-job"),
    )
    assert intake(server)["unknown"] == [
        {"flow": "night-job", "stepKey": None, "nearest": None},
        {"flow": "Refunds", "stepKey": None, "nearest": "refund"},
        {"flow": "checkout", "stepKey": "zzz", "nearest": None},
        {"flow": "checkout", "stepKey": "chargeCard", "nearest": "charge-card"},
    ]


def test_where_nothing_is_declared_nothing_is_unknown(tmp_path):
    with in_thread(Settings(str(tmp_path / "runs.db"), port=0)) as server:
        server.send_events(event("r"))
        assert intake(server)["unknown"] == []


def test_half_named_spans_are_told_by_what_they_lack_and_where_they_came_from(server):
    flow, run = {"failpath.flow.slug": "checkout"}, {"failpath.run.id": "r"}
    spans = [json_span(attributes) for attributes in (flow, flow | run, flow)]
    server.post("/v1/traces", json_traces(*spans), {"Content-Type": JSON})
    counts = intake(server)
    assert (counts["incomplete"], counts["lastRequest"]["items"]) == (3, 3)
    found = {tuple(one["missing"]): one["count"] for one in counts["incompleteSamples"]}
    assert found == {("failpath.run.id", "failpath.step.key"): 2, ("failpath.step.key",): 1}


def test_what_senders_write_fills_no_memory():
    diagnostics = IntakeDiagnostics()
    for number in range(500):
        letters = "".join(chr(ord("a") + int(digit)) for digit in str(number))
        diagnostics.rejected([f"reason {letters} " + "x" * 1000])
        diagnostics.incomplete({(("failpath.run.id",), f"service-{number}"): 1})
    from failpath_otel.server.api.intake import IntakeCounts

    counts = diagnostics.put_into(IntakeCounts(since="now"))
    assert (len(counts.refusals), len(counts.incomplete_samples)) == (MAX_KINDS, MAX_KINDS)
    assert all(len(one.reason) <= MAX_CHARS and len(one.sample) <= MAX_CHARS for one in counts.refusals)
    assert counts.incomplete_samples[0].service == "service-499"


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("charge_card", ["validate-cart", "charge-card"], "charge-card"),
        ("ChargeCard", ["validate-cart", "charge-card"], "charge-card"),
        ("chrge-crd", ["validate-cart", "charge-card"], "charge-card"),
        ("send-mail", ["send-receipt-email", "send-email"], "send-email"),
        ("refund", ["validate-cart", "charge-card"], None),
        ("x", [], None),
        ("日本", ["日本語"], "日本語"),
        ("x" * 512, ["x" * 511, "y"], "x" * 511),
    ],
)
def test_the_nearest_name_is_the_one_that_is_written_most_alike(name, known, found):
    assert nearest(name, known) == found


def test_deleted_runs_are_counted(tmp_path, monkeypatch):
    from failpath_otel.server.store import retention

    monkeypatch.setattr(retention, "ROUND_SECONDS", 0.01)
    monkeypatch.setattr("failpath_otel.server.settings.MIN_RETAIN_SECONDS", 0)
    with in_thread(Settings(str(tmp_path / "runs.db"), port=0, retain_seconds=0.05)) as server:
        server.send_events(event("r"))
        until(lambda: intake(server)["retention"]["deletedRuns"] == 1)
        assert intake(server)["retention"]["runs"] == 0


@pytest.mark.parametrize(
    "template",
    [
        "http://localhost:16686/trace/{trace_id}",
        "https://grafana.example/explore?left=%7B%22q%22:%22{trace_id}%22%7D&s={span_id}",
    ],
)
def test_a_link_to_traces_is_told(tmp_path, template):
    with in_thread(Settings(str(tmp_path / "runs.db"), port=0, trace_url=template)) as server:
        about = server.get("/api/about").json
    assert (about["traceUrl"], about["quietSeconds"], about["stuckAfterSeconds"]) == (template, 30.0, 60.0)
    assert about["version"]


@pytest.mark.parametrize(
    "template",
    [
        "javascript:alert('{trace_id}')",
        "//host/{trace_id}",
        "http:///{trace_id}",
        "https://host/trace",
        "https://{trace_id}/",
        "https://host/{trace_id}/{run_id}",
        "https://host/{trace_id}{",
        "https://host/ {trace_id}",
        "https://host/{trace_id}\n",
        "http://[::1/{trace_id}",
    ],
)
def test_a_link_that_is_none_is_refused_by_name_and_value(template):
    from failpath_otel.errors import ConfigError

    with pytest.raises(ConfigError, match="--trace-url must"):
        Settings("x.db", trace_url=template)


def test_a_bridge_that_keeps_nothing_tells_what_it_noticed(tmp_path):
    from failpath_otel.cli.forwarding import destination_of

    with in_thread(Settings(None, port=0, forward=destination_of("http://127.0.0.1:9", None))) as bridge:
        client = Client(bridge.url)
        client.post("/v1/logs", b"\xff", {"Content-Type": PROTOBUF})
        client.close()
        counts = intake(bridge)
        assert (counts["retention"], counts["unknown"], counts["lastRequest"]["status"]) == (None, [], 400)
        assert "OTLP" in counts["refusals"][0]["sample"]
