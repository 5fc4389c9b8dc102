"""kafka-agent.yaml and kafka-gateway.yaml around a real broker: everything arrives, once, whichever of them is killed."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.collector import CONFIGS, Collector, StartCollector, generate, validate
from support.http_sink import always
from support.kafka import Broker, broker
from support.otlp_backend import Gate, OtlpBackend
from support.otlp_bodies import PROTOBUF, step, traces
from support.served import Client, until
from support.shop import Shop, assert_exact, known, run_ids, shop

from failpath_otel import FailpathClient

AGENT, GATEWAY = "kafka-agent.yaml", "kafka-gateway.yaml"
# Tried again soon, so that the tests are quick. That it is tried without an end is the configuration's own.
SOON = "retry_on_failure: {initial_interval: 50ms, max_interval: 200ms}"
TO_KAFKA = ("--config", f"yaml:exporters::kafka: {{{SOON}}}")
BACKOFF = "error_backoff: {initial_interval: 50ms, max_interval: 200ms}"
FROM_KAFKA = (
    "--config",
    f"yaml:exporters: {{otlp_http/failpath: {{{SOON}}}, otlp_http/backend: {{{SOON}}}}}",
    "--config",
    f"yaml:receivers: {{kafka/failpath: {{{BACKOFF}}}, kafka/backend: {{{BACKOFF}}}}}",
    "--config",
    "yaml:processors::filter/failpath::error_mode: propagate",
)
_names = itertools.count(1)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for all tests, which keep apart by their topics."""
    with broker(tmp_path_factory.mktemp("kafka")) as running:
        yield running


class Tiers:
    """Both tiers, with topics of their own. More gateways may be started."""

    def __init__(self, start: StartCollector, kafka: Broker, failpath: str, backend: str) -> None:
        name = f"test-{next(_names)}"
        self._start = start
        self.env = {
            "KAFKA_BROKERS": f"[{kafka.address}]",
            "KAFKA_TRACES_TOPIC": f"{name}-spans",
            "KAFKA_LOGS_TOPIC": f"{name}-logs",
            "KAFKA_GROUP": name,
            "FAILPATH_ENDPOINT": failpath,
            "BACKEND_ENDPOINT": backend,
        }
        self.agent = self.start_agent()

    def start_agent(self) -> Collector:
        return self._start(AGENT, self.env, arguments=TO_KAFKA)

    def start_gateway(self) -> Collector:
        return self._start(GATEWAY, self.env, arguments=FROM_KAFKA)


@pytest.fixture
def tiers(start_collector: StartCollector, kafka: Broker, gated: Gate, backend: OtlpBackend) -> Tiers:
    return Tiers(start_collector, kafka, gated.url, backend.url)


Sending = Callable[..., contextlib.AbstractContextManager[Shop]]


@pytest.fixture
def sending(tiers: Tiers, monkeypatch: pytest.MonkeyPatch) -> Sending:
    """A shop whose events and spans go to the agent."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", tiers.agent.endpoint)
    return lambda exporter="otlp", spans=True: shop(exporter=exporter, spans_to=tiers.agent.endpoint if spans else None)


def assert_all_there(api: Client, backend: OtlpBackend, service: Shop) -> None:
    """Every run is known as done, each event once, and the backend has each span and record at least once."""
    assert_exact(api, service, events=service.events, seconds=60)
    until(lambda: len({item.proto.span_id for item in backend.traces}) >= service.attempts, 30)
    until(lambda: len({item.attributes["failpath.event.id"] for item in backend.logs}) >= service.events, 30)


@pytest.mark.parametrize("name", [AGENT, GATEWAY])
def test_the_configurations_are_valid(name: str) -> None:
    validate(CONFIGS / name)


def test_a_new_group_reads_what_was_written_before_it_came_and_running_shows_while_a_step_runs(
    tiers: Tiers, sending: Sending, api: Client, backend: OtlpBackend
) -> None:
    with sending() as service:
        service.checkouts(8)
        service.flush()
        tiers.start_gateway()
        assert_all_there(api, backend, service)
    with FailpathClient(exporter="otlp", flows=False) as failpath:
        with failpath.run("checkout", run_id="r1").step("charge-card"):
            story = until(lambda: known(api, "r1"), 2)
            assert story.steps["charge-card"].status == "running"
        failpath.flush()
        until(lambda: (story := known(api, "r1")) and story.steps["charge-card"].status == "success")


def test_a_gateway_that_is_killed_in_the_middle_has_lost_nothing(
    tiers: Tiers, sending: Sending, api: Client, backend: OtlpBackend, gated: Gate
) -> None:
    first = tiers.start_gateway()
    with sending() as service:
        service.checkouts(4)
        service.flush()
        until(lambda: run_ids(api))
        # Taken by the server, not answered: the gateway does not know, and is killed before it can ask again.
        gated.refuse = gated.unanswered
        service.checkouts(40)
        service.flush()
        until(lambda: gated.refused > 2)
        first.kill()
        gated.refuse = None
        tiers.start_gateway()
        assert_all_there(api, backend, service)
    assert api.get("/api/intake").json["duplicates"] > 0


def test_a_destination_that_refuses_holds_up_its_own_data_alone(
    tiers: Tiers, sending: Sending, api: Client, backend: OtlpBackend, gated: Gate
) -> None:
    gateway = tiers.start_gateway()
    gated.refuse = always(503)
    with sending() as service:
        service.checkouts(12)
        service.flush()
        until(lambda: len(backend.traces) >= service.attempts and gated.refused, 30)
        assert run_ids(api) == set()
        gated.close()
        service.checkouts(4)
        service.flush()
        gated.refuse = None
        gated.open()
        assert_all_there(api, backend, service)
    assert gateway.metric("exporter_send_failed_spans") == 0


def test_two_gateways_share_the_work_and_one_goes_on_alone(
    tiers: Tiers, sending: Sending, api: Client, backend: OtlpBackend
) -> None:
    gateways = [tiers.start_gateway(), tiers.start_gateway()]
    with sending() as service:
        service.checkouts(20)
        service.flush()
        assert_exact(api, service, events=service.events, seconds=60)
        gateways[0].stop()
        service.checkouts(20)
        service.flush()
        assert_all_there(api, backend, service)


def test_a_message_that_is_refused_for_good_does_not_stop_those_behind_it(
    tiers: Tiers, sending: Sending, api: Client, gated: Gate
) -> None:
    gateway = tiers.start_gateway()
    gated.refuse = always(400)
    with sending(exporter="none") as lost, sending(exporter="none") as later:
        lost.checkouts(2)
        lost.flush()
        until(lambda: gateway.metric("exporter_send_failed_spans", exporter="otlp_http/failpath") == lost.attempts, 30)
        gated.refuse = None
        later.checkouts(4)
        later.flush()
        assert_exact(api, later, events=later.attempts, seconds=30)
        assert run_ids(api) == set(later.done)


def test_generated_load_and_large_batches_are_divided_into_messages_that_a_broker_takes(
    tiers: Tiers, api: Client, backend: OtlpBackend, telemetrygen: Path
) -> None:
    tiers.start_gateway()
    with contextlib.closing(Client(tiers.agent.endpoint)) as sender:
        steps = [step(f"run-{n}", **{"failpath.metadata.note": f"{n:04}" * 1000}) for n in range(600)]
        body = traces(*steps).SerializeToString()
        assert len(body) > 2_000_000
        assert sender.post("/v1/traces", body, {"Content-Type": PROTOBUF}).status == 200
    to = ("--otlp-http", "--otlp-endpoint", tiers.agent.endpoint.removeprefix("http://"))
    generate(telemetrygen, "traces", *to, "--traces", "50", "--workers", "2")
    until(lambda: len(run_ids(api)) == 600, 30)
    until(lambda: len({item.proto.span_id for item in backend.traces}) >= 600 + 200, 30)
    assert tiers.agent.metric("exporter_send_failed_spans") == 0


def test_while_the_broker_is_gone_the_agent_holds_what_comes_on_disk_through_a_kill(
    tiers: Tiers, sending: Sending, api: Client, backend: OtlpBackend, kafka: Broker
) -> None:
    """The last test, since all share the broker."""
    tiers.start_gateway()
    with sending() as service:
        service.checkouts(4)
        service.flush()
        assert_exact(api, service, events=service.events, seconds=60)
        kafka.kill()
        service.checkouts(12)
        service.flush()
        tiers.agent.kill()
        tiers.agent.start()
        service.checkouts(4)
        service.flush()
        kafka.start()
        assert_all_there(api, backend, service)
        assert service.client.stats().dropped == {}
