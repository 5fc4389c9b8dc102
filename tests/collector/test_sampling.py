"""sampling.yaml: every step for the server; for the backend each trace with a failed step, whole, and a share of the rest."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.collector import CONFIGS, Collector, StartCollector, generate, validate
from support.otlp_backend import OtlpBackend
from support.otlp_bodies import PROTOBUF, add_span, logs, step, traces
from support.served import Client, until
from support.shop import Shop, assert_exact, run_ids, shop, stored_events

CONFIG = "sampling.yaml"
# A condition that cannot be evaluated costs the request, and so is seen.
STRICT = ("--config", "yaml:processors::filter/failpath::error_mode: propagate")
OK, ERROR = 1, 2

Start = Callable[..., Collector]


@pytest.fixture
def start(start_collector: StartCollector, api: Client, backend: OtlpBackend) -> Start:
    """Starts a Collector that samples so many percent of the rest; one second is the least that a trace is waited for."""

    def begin(percentage: str, *arguments: str) -> Collector:
        env = {"FAILPATH_ENDPOINT": api.url, "BACKEND_ENDPOINT": backend.url}
        sampling = {"SAMPLING_PERCENTAGE": percentage, "SAMPLING_DECISION_WAIT": "1s"}
        return start_collector(CONFIG, {**env, **sampling}, arguments=(*STRICT, *arguments))

    return begin


def send(collector: Collector, *requests: Any, path: str = "/v1/traces") -> None:
    with contextlib.closing(Client(collector.endpoint)) as sender:
        for request in requests:
            assert sender.post(path, request.SerializeToString(), {"Content-Type": PROTOBUF}).status == 200


def trace_id(number: int) -> bytes:
    """The id of the n-th trace: the same in each run of the tests, so that what is sampled is too."""
    return hashlib.sha256(b"%d" % number).digest()[:16]


def decided(collector: Collector) -> float:
    """How many traces were judged."""
    return collector.metric("processor_tail_sampling_global_count_traces_sampled")


def in_requests(service: Shop, n: int) -> None:
    """Makes ``n`` runs, each in a request with a span of its own around it, and so in one trace."""
    tracer = service.provider.get_tracer("a-server")
    for _ in range(n):
        with tracer.start_as_current_span("POST /checkout"):
            service.checkout()


def spans_of_runs(backend: OtlpBackend) -> Counter[str]:
    """How many spans of steps the backend has, by run."""
    return Counter(item.attributes["failpath.run.id"] for item in backend.traces if "failpath.run.id" in item.attributes)


def test_the_configuration_is_valid_as_it_is() -> None:
    validate(CONFIGS / CONFIG)


def test_the_server_has_every_run_and_the_backend_each_trace_with_a_failed_step_whole(
    start: Start, api: Client, backend: OtlpBackend
) -> None:
    collector = start("0")
    with shop(spans_to=collector.endpoint) as service:
        in_requests(service, 16)
        service.flush()
        assert_exact(api, service, events=service.attempts)
    until(lambda: decided(collector) == 16)
    # An attempt that failed is a failed step, also where the next one succeeds.
    failed = {run_id: run for run_id, run in service.done.items() if any("error" in s.attempts for s in run.steps.values())}
    assert 0 < len(failed) < 16
    whole = {run_id: sum(len(each.attempts) for each in run.steps.values()) for run_id, run in failed.items()}
    until(lambda: len(backend.traces) >= sum(whole.values()) + len(failed))
    assert spans_of_runs(backend) == whole
    assert backend.names().count("POST /checkout") == len(failed)


def test_events_and_spans_at_once_are_the_same_runs_and_logs_are_not_sampled(
    start: Start, api: Client, backend: OtlpBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = start("0")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    with shop(exporter="otlp", spans_to=collector.endpoint) as service:
        in_requests(service, 8)
        service.flush()
        assert_exact(api, service, events=service.events)
    until(lambda: len(backend.logs) >= service.events)
    assert len(backend.logs) == service.events
    until(lambda: decided(collector) == 8)
    until(lambda: backend.names().count("POST /checkout") == 4)


def test_nothing_that_the_server_gets_waits_for_a_decision(
    start_collector: StartCollector, api: Client, backend: OtlpBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {"FAILPATH_ENDPOINT": api.url, "BACKEND_ENDPOINT": backend.url, "SAMPLING_DECISION_WAIT": "60s"}
    collector = start_collector(CONFIG, env, arguments=STRICT)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    with shop(exporter="otlp", spans_to=collector.endpoint) as service:
        in_requests(service, 8)
        service.flush()
        assert_exact(api, service, events=service.events, seconds=10)
    assert decided(collector) == 0
    assert backend.traces == []


def test_a_step_has_failed_for_the_sampler_where_it_has_for_the_server(start: Start, api: Client, backend: OtlpBackend) -> None:
    kinds: dict[str, tuple[str | None, int, str]] = {
        "says error": ("error", 0, "error"),
        "says error under OK": ("error", OK, "error"),
        "has ERROR": (None, ERROR, "error"),
        "says success under ERROR": ("success", ERROR, "success"),
        "says skipped under ERROR": ("skipped", ERROR, "skipped"),
        "has OK": (None, OK, "success"),
        "has nothing": (None, 0, "success"),
    }
    request = traces()
    for number, (run_id, (said, code, _)) in enumerate(kinds.items()):
        more = {} if said is None else {"failpath.step.status": said}
        add_span(request, step(run_id, **more), trace_id=trace_id(number), status={"code": code})
    collector = start("0")
    send(collector, request)
    until(lambda: run_ids(api) == set(kinds))
    failed = {run_id for run_id, (*_, status) in kinds.items() if status == "error"}
    for run_id, (*_, status) in kinds.items():
        known = api.get("/api/run", flow="checkout", run_id=run_id).json
        assert next(each["status"] for each in known["steps"] if each["stepKey"] == "charge-card") == status
    until(lambda: decided(collector) == len(kinds))
    until(lambda: len(backend.traces) >= len(failed))
    assert spans_of_runs(backend) == dict.fromkeys(failed, 1)


def test_a_span_that_failed_and_is_no_step_does_not_keep_a_trace(start: Start, backend: OtlpBackend) -> None:
    collector = start("0")
    request = traces({"http.route": "/"}, trace_id=trace_id(1), status={"code": ERROR})
    send(collector, request, traces(step("r1"), trace_id=trace_id(2), status={"code": ERROR}))
    until(lambda: decided(collector) == 2)
    until(lambda: backend.traces)
    assert [item.proto.trace_id for item in backend.traces] == [trace_id(2)]


def test_the_share_of_the_rest_is_what_was_asked_for_and_the_same_in_every_collector(
    start: Start, api: Client, backend: OtlpBackend
) -> None:
    several = traces()
    for number in range(1000):
        add_span(several, step(f"run-{number}"), trace_id=trace_id(number))
    chosen: list[set[bytes]] = []
    for _ in range(2):
        collector = start("20")
        backend.traces.clear()
        send(collector, several)
        until(lambda collector=collector: decided(collector) == 1000)
        sampled = collector.metric("processor_tail_sampling_global_count_traces_sampled", sampled="true")
        until(lambda sampled=sampled: len(backend.traces) == sampled)
        chosen.append({item.proto.trace_id for item in backend.traces})
    until(lambda: len(run_ids(api)) == 1000)
    assert chosen[0] == chosen[1]
    assert 160 <= len(chosen[0]) <= 240, "three standard deviations about 200"


def test_more_traces_than_are_waited_for_at_once_are_held_and_none_is_left_out(
    start: Start, api: Client, backend: OtlpBackend
) -> None:
    collector = start("0", "--config", "yaml:processors::tail_sampling::num_traces: 20")
    several = traces()
    for number in range(50):
        add_span(several, step(f"run-{number}"), trace_id=trace_id(number), status={"code": ERROR if number % 2 else OK})
    send(collector, several)
    until(lambda: len(run_ids(api)) == 50)
    until(lambda: len(backend.traces) >= 25, 20)
    assert {item.proto.trace_id for item in backend.traces} == {trace_id(number) for number in range(1, 50, 2)}


def test_spans_that_come_after_the_decision_follow_it(start: Start, api: Client, backend: OtlpBackend) -> None:
    collector = start("0")
    send(collector, traces(step("r1"), trace_id=trace_id(1), status={"code": ERROR}), traces(step("r2"), trace_id=trace_id(2)))
    until(lambda: decided(collector) == 2)
    late = traces(step("r1", "send-receipt"), trace_id=trace_id(1), span_id=b"lateone1")
    too_late = traces(step("r2", "send-receipt"), trace_id=trace_id(2), span_id=b"lateone2", status={"code": ERROR})
    send(collector, too_late, late)
    until(lambda: len(backend.traces) == 2)
    assert {item.attributes["failpath.run.id"] for item in backend.traces} == {"r1"}
    until(lambda: collector.metric("processor_tail_sampling_early_releases_from_cache_decision") == 2)
    until(lambda: stored_events(api, ["r2"]) == 2)


def test_log_records_go_to_the_backend_whatever_they_are_and_only_events_to_the_server(
    start: Start, api: Client, backend: OtlpBackend
) -> None:
    collector = start("0")
    send(collector, logs({"message": "no event"}, event_name=""), path="/v1/logs")
    until(lambda: len(backend.logs) == 1)
    assert api.get("/api/intake").json["unmapped"] == 0
    assert run_ids(api) == set()


def test_spans_of_telemetrygen_that_failed_are_kept(
    start: Start, api: Client, backend: OtlpBackend, telemetrygen: Path
) -> None:
    collector = start("0")
    attributes = ['failpath.flow.slug="checkout"', 'failpath.run.id="generated"', 'failpath.step.key="charge-card"']
    each = [argument for attribute in attributes for argument in ("--telemetry-attributes", attribute)]
    to = ("--otlp-endpoint", collector.grpc_endpoint)
    generate(telemetrygen, "traces", *to, "--traces", "10", "--status-code", "Error", *each)
    generate(telemetrygen, "traces", *to, "--traces", "10", "--service", "fine", *each)
    until(lambda: decided(collector) == 20)
    until(lambda: len(backend.traces) >= 20)
    assert {item.resource["service.name"] for item in backend.traces} == {"telemetrygen"}
    assert len(backend.traces) == 20
    until(lambda: stored_events(api, ["generated"]) == 40)


def test_behind_agents_the_spans_of_a_trace_meet_in_one_sampler(
    start: Start, start_collector: StartCollector, api: Client, backend: OtlpBackend
) -> None:
    samplers = [start("0"), start("0")]
    addresses = f"[{', '.join(each.grpc_endpoint for each in samplers)}]"
    agents = [start_collector("agent.yaml", {"OTELCOL_GATEWAYS": addresses}) for _ in range(2)]
    for number in range(20):
        fine = traces(step(f"run-{number}", "validate-cart"), trace_id=trace_id(number), span_id=b"thefirst")
        failed = traces(step(f"run-{number}"), trace_id=trace_id(number), status={"code": ERROR})
        send(agents[0], fine)
        send(agents[1], failed)
    until(lambda: len(backend.traces) >= 40)
    assert Counter(item.proto.trace_id for item in backend.traces) == {trace_id(number): 2 for number in range(20)}
    until(lambda: len(run_ids(api)) == 20)
    assert sorted(decided(each) > 0 for each in samplers) == [True, True]
