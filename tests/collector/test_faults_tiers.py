"""Two tiers with queues on disk under faults: what was acknowledged survives kills, what does not fit stays with its sender."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.collector import Collector, StartCollector
from support.http_sink import always
from support.otlp_backend import Gate, OtlpBackend
from support.otlp_bodies import PROTOBUF, add_log, logs, step
from support.served import Client, until
from support.shop import Shop, assert_exact, run_ids, shop

# Tried again soon, so that the tests are quick. That it is tried without an end is the configuration's own.
SOON = "retry_on_failure: {initial_interval: 50ms, max_interval: 200ms}"
# A queue takes no request that is larger than itself: with small queues go small batches.
SMALL = "sending_queue: {batch: {min_size: 5000, max_size: 20000}}"
QUEUE_BYTES = 100_000
AGENT = ("--config", f"yaml:exporters: {{load_balancing: {{{SOON}, {SMALL}}}}}")
GATEWAY = ("--config", f"yaml:exporters: {{otlp_http/failpath: {{{SOON}, {SMALL}}}, otlp_http/backend: {{{SOON}, {SMALL}}}}}")
STRICT = ("--config", "yaml:processors::filter/failpath::error_mode: propagate")

LOAD_BALANCING = "load_balancing"

Refusal = Callable[[Gate], None]
Start = Callable[..., Collector]
SendTo = Callable[[Collector], contextlib.AbstractContextManager[Shop]]


@pytest.fixture
def start_gateway(start_collector: StartCollector, gated: Gate, backend: OtlpBackend) -> Start:
    """Starts a gateway whose way to the server leads through the gate, and of whose disk little may be used."""
    env = {"FAILPATH_ENDPOINT": gated.url, "BACKEND_ENDPOINT": backend.url, "OTELCOL_QUEUE_BYTES": str(QUEUE_BYTES)}
    return lambda *more: start_collector("gateway.yaml", env, arguments=(*GATEWAY, *STRICT, *more))


@pytest.fixture
def start_agent(start_collector: StartCollector) -> Start:
    """Starts an agent before these gateways."""

    def begin(*gateways: Collector) -> Collector:
        return start_collector("agent.yaml", before(*gateways), arguments=AGENT)

    return begin


@pytest.fixture
def send_to(monkeypatch: pytest.MonkeyPatch) -> SendTo:
    """A shop whose events and spans both go to a Collector."""

    def begin(collector: Collector) -> contextlib.AbstractContextManager[Shop]:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        return shop(exporter="otlp", spans_to=collector.endpoint, send_timeout_millis=500)

    return begin


def before(*gateways: Collector) -> dict[str, str]:
    return {"OTELCOL_GATEWAYS": f"[{', '.join(each.grpc_endpoint for each in gateways)}]"}


def refused(gated: Gate) -> None:
    """The server answers that it is overloaded."""
    gated.refuse = always(503)


def down(gated: Gate) -> None:
    """The server is gone."""
    gated.close()


def back(gated: Gate) -> None:
    """The server takes what comes."""
    gated.refuse = None
    gated.close()
    gated.open()


def queued(collector: Collector, exporter: str = "otlp_http/failpath") -> float:
    """How many bytes of an exporter's events wait on disk or are under way."""
    return collector.metric("exporter_queue_size", exporter=exporter, data_type="logs")


def acknowledged(service: Shop, collector: Collector) -> None:
    """All that was made is with the Collector, as far as the sender was told."""
    service.flush()
    assert not service.client.stats().pending
    until(lambda: collector.metric("receiver_accepted_spans") >= service.attempts)


def filled(service: Shop, collector: Collector) -> None:
    """Makes runs until the Collector's queue of events is more than half full, and all of them are acknowledged."""
    for _ in range(100):
        service.checkout()
        acknowledged(service, collector)
        if queued(collector) > QUEUE_BYTES * 0.5:
            return
    raise AssertionError("the queue did not fill")


def overfilled(service: Shop, collector: Collector) -> None:
    """Makes more runs than the rest of its queue can take."""
    service.checkouts(30)
    assert service.client.flush(1500).pending, "the Collector acknowledged more than its queue holds"
    assert queued(collector) <= QUEUE_BYTES


def nothing_given_up(*collectors: Collector) -> None:
    for collector in collectors:
        assert collector.metric("exporter_send_failed_log_records") == 0
        assert collector.metric("exporter_send_failed_spans") == 0
        given_up = [line for line in collector.said(100_000).splitlines() if "Dropping data" in line]
        # That is also what a Collector says of a queue on disk when it is stopped in order.
        assert [line for line in given_up if "interrupted due to shutdown" not in line] == []


def large() -> bytes:
    """Events of more bytes than are left in a queue that is more than half full."""
    request = logs()
    for number in range(10):
        note = {"failpath.step.status": "success", "failpath.metadata.note": "x" * 6000}
        add_log(request, step(f"large-{number}", **note), span_id=bytes([number + 1]) * 8)
    return request.SerializeToString()


def spans_of(backend: OtlpBackend) -> set[bytes]:
    return {item.proto.span_id for item in backend.traces}


@contextlib.contextmanager
def under_load(service: Shop) -> Iterator[None]:
    """Runs are made, one after the other, for as long as the block lasts."""
    ended = threading.Event()

    def make() -> None:
        for _ in range(500):
            service.checkout()
            if ended.wait(0.01):
                return

    thread = threading.Thread(target=make)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("outage", [refused, down])
def test_a_gateway_killed_with_a_full_queue_brings_all_that_it_acknowledged_when_it_is_started_again(
    outage: Refusal,
    start_gateway: Start,
    send_to: SendTo,
    gated: Gate,
    api: Client,
    backend: OtlpBackend,
) -> None:
    gateway = start_gateway()
    outage(gated)
    with send_to(gateway) as later:
        with send_to(gateway) as first:
            filled(first, gateway)
        # Its sender is gone: what is known of these runs from here on was on the gateway's disk.
        overfilled(later, gateway)
        gateway.kill()
        assert run_ids(api) == set()
        back(gated)
        gateway.start()
        assert_exact(api, first, events=first.events)
        # What was not acknowledged had stayed with its sender.
        assert later.client.flush(20_000)
        assert later.client.stats().dropped == {}
        assert_exact(api, first, later, events=first.events + later.events)
    until(lambda: len(spans_of(backend)) == first.attempts + later.attempts)
    nothing_given_up(gateway)


def test_a_full_queue_holds_its_senders_until_there_is_room(
    start_gateway: Start, send_to: SendTo, gated: Gate, api: Client
) -> None:
    gateway = start_gateway()
    refused(gated)
    with send_to(gateway) as service:
        filled(service, gateway)
        overfilled(service, gateway)
        answers: list[Any] = []

        def ask() -> None:
            with contextlib.closing(Client(gateway.endpoint)) as sender:
                answers.append(sender.post("/v1/logs", large(), {"Content-Type": PROTOBUF}))

        asking = threading.Thread(target=ask)
        asking.start()
        asking.join(1)
        assert answers == []
        back(gated)
        asking.join(20)
        assert [answer.status for answer in answers] == [200]
        assert service.client.flush(20_000)
        assert service.client.stats().dropped == {}
        until(lambda: run_ids(api) == {*service.done, *(f"large-{number}" for number in range(10))})
        assert_exact(api, service, events=service.events)
    nothing_given_up(gateway)


def test_a_queue_that_does_not_hold_its_senders_tells_them_to_try_again(
    start_gateway: Start, send_to: SendTo, gated: Gate, api: Client
) -> None:
    gateway = start_gateway("--config", "yaml:exporters::otlp_http/failpath::sending_queue::block_on_overflow: false")
    refused(gated)
    with send_to(gateway) as service:
        filled(service, gateway)
        overfilled(service, gateway)
        with contextlib.closing(Client(gateway.endpoint)) as sender:
            answer = sender.post("/v1/logs", large(), {"Content-Type": PROTOBUF})
        assert answer.status == 503
        back(gated)
        assert service.client.flush(20_000)
        assert service.client.stats().dropped == {}
        assert_exact(api, service, events=service.events)
        assert run_ids(api) == set(service.done)
    nothing_given_up(gateway)


def test_an_agent_over_its_memory_limit_refuses_and_senders_keep_what_they_have(
    start_gateway: Start, start_collector: StartCollector, send_to: SendTo, api: Client
) -> None:
    # Less than it has before the first span.
    limit = ("--config", "yaml:processors::memory_limiter: {limit_mib: 4, spike_limit_mib: 1, check_interval: 100ms}")
    gateway = start_gateway()
    agent = start_collector("agent.yaml", before(gateway), arguments=(*AGENT, *limit))
    until(lambda: "usage is above soft limit" in agent.said(1000))
    with send_to(agent) as service:
        service.checkouts(8)
        assert service.client.flush(1000).pending
        assert run_ids(api) == set()
        until(lambda: agent.metric("receiver_refused_log_records"))
        agent.stop()
        agent.arguments = AGENT
        agent.start()
        assert service.client.flush(20_000)
        assert service.client.stats().dropped == {}
        assert_exact(api, service)
    nothing_given_up(agent, gateway)


def test_one_of_two_gateways_killed_under_load_costs_nothing_once_it_is_back(
    start_gateway: Start,
    start_agent: Start,
    send_to: SendTo,
    api: Client,
    backend: OtlpBackend,
) -> None:
    gateways = [start_gateway(), start_gateway()]
    agent = start_agent(*gateways)
    with send_to(agent) as service:
        with under_load(service):
            until(lambda: all(each.metric("exporter_sent_log_records") for each in gateways))
            gateways[0].kill()
            had = agent.metric("exporter_queue_size")
            until(lambda: agent.metric("exporter_queue_size") > had)
            made = len(service.done)
            until(lambda: len(service.done) > made + 20)
            gateways[0].start()
            made = len(service.done)
            until(lambda: len(service.done) > made + 20)
        acknowledged(service, agent)
        assert_exact(api, service, events=service.events)
        until(lambda: len(spans_of(backend)) == service.attempts)
    nothing_given_up(agent, *gateways)


def test_what_a_gateway_that_does_not_come_back_had_not_taken_goes_to_the_other_when_agents_know(
    start_gateway: Start,
    start_agent: Start,
    send_to: SendTo,
    api: Client,
    backend: OtlpBackend,
) -> None:
    gone, left = start_gateway(), start_gateway()
    agent = start_agent(gone, left)
    with send_to(agent) as service:
        service.checkouts(8)
        acknowledged(service, agent)
        assert_exact(api, service, events=service.events)
        until(lambda: len(spans_of(backend)) == service.attempts)
        gone.kill()
        service.checkouts(20)
        acknowledged(service, agent)
        until(lambda: agent.metric("loadbalancer_backend_outcome", endpoint=gone.grpc_endpoint, success="false"))
        assert queued(agent, LOAD_BALANCING)
        agent.stop()
        agent.env = before(left)
        agent.start()
        assert_exact(api, service, events=service.events)
        until(lambda: len(spans_of(backend)) == service.attempts)
    nothing_given_up(agent, left)


def test_an_agent_killed_while_no_gateway_is_there_brings_all_that_it_acknowledged(
    start_gateway: Start,
    start_agent: Start,
    send_to: SendTo,
    api: Client,
    backend: OtlpBackend,
) -> None:
    gateways = [start_gateway(), start_gateway()]
    agent = start_agent(*gateways)
    for gateway in gateways:
        gateway.kill()
    with send_to(agent) as service:
        service.checkouts(20)
        acknowledged(service, agent)
    agent.kill()
    assert run_ids(api) == set()
    for each in (agent, *gateways):
        each.start()
    assert_exact(api, service, events=service.events)
    until(lambda: len(spans_of(backend)) == service.attempts)
    nothing_given_up(agent, *gateways)


def test_an_agent_killed_under_load_costs_nothing_that_a_client_sends_again(
    start_gateway: Start,
    start_agent: Start,
    api: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway = start_gateway()
    agent = start_agent(gateway)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", agent.endpoint)
    with shop(exporter="otlp") as service:
        with under_load(service):
            for _ in range(2):
                until(lambda: agent.metric("receiver_accepted_log_records"))
                agent.kill()
                made = len(service.done)
                until(lambda made=made: len(service.done) > made + 10)
                agent.start()
        assert service.client.flush(20_000)
        assert service.client.stats().dropped == {}
        assert_exact(api, service, events=service.events)
    nothing_given_up(agent, gateway)


@pytest.mark.parametrize("outage", [refused, down])
def test_what_both_tiers_hold_while_the_server_is_down_arrives_though_both_are_killed(
    outage: Refusal,
    start_gateway: Start,
    start_agent: Start,
    send_to: SendTo,
    gated: Gate,
    api: Client,
    backend: OtlpBackend,
) -> None:
    gateway = start_gateway()
    agent = start_agent(gateway)
    outage(gated)
    with send_to(agent) as service:
        service.checkouts(60)
        acknowledged(service, agent)
        # The gateway takes what its queue holds; the agent keeps the rest.
        until(lambda: queued(gateway) > QUEUE_BYTES * 0.7)
        assert queued(gateway) <= QUEUE_BYTES
        assert queued(agent, LOAD_BALANCING) > 0
    gateway.kill()
    agent.kill()
    assert run_ids(api) == set()
    agent.start()
    gateway.start()
    back(gated)
    assert_exact(api, service, events=service.events)
    until(lambda: len(spans_of(backend)) == service.attempts)
    until(lambda: queued(agent, LOAD_BALANCING) == queued(gateway) == 0)
    nothing_given_up(agent, gateway)


def test_a_sampler_killed_while_the_server_is_down_loses_nothing_of_failpaths(
    start_collector: StartCollector, gated: Gate, backend: OtlpBackend, send_to: SendTo, api: Client
) -> None:
    env = {"FAILPATH_ENDPOINT": gated.url, "BACKEND_ENDPOINT": backend.url, "SAMPLING_DECISION_WAIT": "60s"}
    sampler = start_collector("sampling.yaml", env, arguments=(*GATEWAY, *STRICT))
    down(gated)
    with send_to(sampler) as service:
        service.checkouts(8)
        acknowledged(service, sampler)
    sampler.kill()
    back(gated)
    sampler.start()
    assert_exact(api, service, events=service.events)
    # The backend may have some twice: what it took just before the kill.
    until(lambda: len({item.attributes["failpath.event.id"] for item in backend.logs}) == service.events)
    # What was not decided yet was in memory.
    assert backend.traces == []
    nothing_given_up(sampler)
