"""agent.yaml and gateway.yaml: two tiers, each with its queues on disk, and two gateways between which traces are divided."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from pathlib import Path

import pytest
from opentelemetry import trace
from support.collector import CONFIGS, Collector, StartCollector, generate, validate
from support.otlp_backend import OtlpBackend
from support.otlp_bodies import PROTOBUF, logs
from support.served import Client, until
from support.shop import assert_exact, known, run_ids, shop, stored_events

from failpath_otel import FailpathClient

# A condition that cannot be evaluated costs the request, and so is seen.
STRICT = ("--config", "yaml:processors::filter/failpath::error_mode: propagate")
EVENT = {
    "failpath.flow.slug": "checkout",
    "failpath.run.id": "r1",
    "failpath.step.key": "charge-card",
    "failpath.step.status": "success",
}


@pytest.fixture
def gateways(start_collector: StartCollector, api: Client, backend: OtlpBackend) -> list[Collector]:
    env = {"FAILPATH_ENDPOINT": api.url, "BACKEND_ENDPOINT": backend.url}
    return [start_collector("gateway.yaml", env, arguments=STRICT) for _ in range(2)]


@pytest.fixture
def agent(start_collector: StartCollector, gateways: list[Collector], monkeypatch: pytest.MonkeyPatch) -> Collector:
    """An agent before both gateways, to which the environment sends what our client has."""
    started = start_collector("agent.yaml", {"OTELCOL_GATEWAYS": f"[{', '.join(each.grpc_endpoint for each in gateways)}]"})
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", started.endpoint)
    return started


@pytest.mark.parametrize("config", ["agent.yaml", "gateway.yaml"])
def test_the_configuration_is_valid_as_it_is(config: str) -> None:
    validate(CONFIGS / config)


def test_an_agent_may_have_one_gateway_or_many() -> None:
    validate(CONFIGS / "agent.yaml", {"OTELCOL_GATEWAYS": "[gateway-1:4317]"})
    validate(CONFIGS / "agent.yaml", {"OTELCOL_GATEWAYS": "[gateway-1:4317, gateway-2:4317, gateway-3]"})


def test_spans_of_steps_reach_the_server_and_all_spans_the_backend(agent: Collector, api: Client, backend: OtlpBackend) -> None:
    with shop(spans_to=agent.endpoint) as service:
        with service.provider.get_tracer("a-library").start_as_current_span("a query", kind=trace.SpanKind.CLIENT):
            service.checkouts(8)
        service.flush()
        assert_exact(api, service, events=service.attempts)
    until(lambda: len(backend.traces) >= service.attempts + 1)
    assert len(backend.traces) == service.attempts + 1
    assert backend.names().count("a query") == 1
    assert api.get("/api/intake").json["unmapped"] == 0


def test_events_as_log_records_reach_the_server_and_the_backend(agent: Collector, api: Client, backend: OtlpBackend) -> None:
    with shop(exporter="otlp") as service:
        service.checkouts(8)
        service.flush()
        assert_exact(api, service, events=service.events)
    until(lambda: len(backend.logs) >= service.events)
    assert len(backend.logs) == service.events
    assert {item.name for item in backend.logs} == {"failpath.step"}
    assert backend.traces == []


def test_events_and_spans_at_once_are_the_same_runs(agent: Collector, api: Client, backend: OtlpBackend) -> None:
    with shop(exporter="otlp", spans_to=agent.endpoint) as service:
        service.checkouts(8)
        service.flush()
        assert_exact(api, service, events=service.events)
    until(lambda: (len(backend.logs), len(backend.traces)) == (service.events, service.attempts))


def test_what_is_no_step_reaches_the_backend_alone(agent: Collector, api: Client, backend: OtlpBackend) -> None:
    with shop(spans_to=agent.endpoint) as service:
        with service.provider.get_tracer("a-library").start_as_current_span("a query"):
            pass
        service.flush()
    body = logs({"message": "no event"}, event_name="").SerializeToString()
    with contextlib.closing(Client(agent.endpoint)) as sender:
        assert sender.post("/v1/logs", body, {"Content-Type": PROTOBUF}).status == 200
    until(lambda: (len(backend.traces), len(backend.logs)) == (1, 1))
    assert run_ids(api) == set()
    counts = api.get("/api/intake").json
    assert counts["unmapped"] == counts["accepted"] == 0, "the filter leaves nothing for the server to pass over"


def test_a_step_is_seen_running_through_both_tiers_while_it_runs(agent: Collector, api: Client) -> None:
    with FailpathClient(exporter="otlp", flows=False) as failpath, failpath.run("checkout", run_id="r1").step("charge-card"):
        story = until(lambda: known(api, "r1"))  # how soon is what benchmarks/bench_collector.py measures
        assert story.steps["charge-card"].status == "running"


def test_each_trace_goes_to_one_gateway_and_both_have_some(
    agent: Collector, gateways: list[Collector], api: Client, backend: OtlpBackend, telemetrygen: Path
) -> None:
    attributes = ['failpath.flow.slug="checkout"', 'failpath.run.id="generated"', 'failpath.step.key="charge-card"']
    each = [argument for attribute in attributes for argument in ("--telemetry-attributes", attribute)]
    generate(telemetrygen, "traces", "--otlp-endpoint", agent.grpc_endpoint, "--traces", "40", *each)
    until(lambda: len(backend.traces) >= 80)
    assert len(backend.traces) == 80
    until(lambda: stored_events(api, ["generated"]) == 80)
    of_trace: dict[bytes, int] = defaultdict(int)
    for item in backend.traces:
        of_trace[item.proto.trace_id] += 1
    assert set(of_trace.values()) == {2}
    received = [each.metric("receiver_accepted_spans") for each in gateways]
    assert sum(received) == 80
    assert all(0 < count < 80 and count % 2 == 0 for count in received), received


def test_log_records_that_grow_on_their_way_to_the_gateways_are_not_too_large_for_them(
    agent: Collector, backend: OtlpBackend
) -> None:
    # One resource for 4,000 traces. The agent sends a copy of it with each: 16 MB instead of 0.1, in a request to each gateway.
    request = logs()
    group = request.resource_logs.add()
    group.resource.attributes.add(key="long").value.string_value = "x" * 4000
    records = group.scope_logs.add().log_records
    for number in range(4000):
        records.add(trace_id=(number + 1).to_bytes(16, "big"), time_unix_nano=number + 1)
    with contextlib.closing(Client(agent.endpoint)) as sender:
        assert sender.post("/v1/logs", request.SerializeToString(), {"Content-Type": PROTOBUF}).status == 200
    until(lambda: len(backend.logs) >= 4000, 30)
    assert len(backend.logs) == 4000
    assert agent.metric("exporter_send_failed_log_records") == 0


@pytest.mark.parametrize("config", ["agent.yaml", "gateway.yaml"])
def test_health_and_metrics_are_where_the_environment_says(config: str, start_collector: StartCollector) -> None:
    # Given once more, the file takes back what tests set for the metrics.
    started = start_collector(config, arguments=("--config", str(CONFIGS / config)))
    with contextlib.closing(Client(f"http://127.0.0.1:{started.health_port}")) as health:
        assert health.get("/").status == 200
    with contextlib.closing(Client(started.endpoint)) as sender:
        assert sender.post("/v1/logs", logs(EVENT).SerializeToString(), {"Content-Type": PROTOBUF}).status == 200
    assert started.metric("receiver_accepted_log_records") == 1
