"""Through a real broker, what handles a message goes on with its producer's run, whoever instruments what."""

from __future__ import annotations

import asyncio
import importlib
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from typing import Any

import pytest
from support.kafka import broker
from support.processes import SECONDS
from support.served import until
from support.tracing import Tracing

from failpath_otel.integrations.kafka import consumed, headers_with_run
from failpath_otel.testing import RecordingClient

pytestmark = pytest.mark.slow

Handle = Callable[[Any], None]
INSTRUMENTORS = {
    "aiokafka": ("opentelemetry.instrumentation.aiokafka", "AIOKafkaInstrumentor"),
    "confluent_kafka": ("opentelemetry.instrumentation.confluent_kafka", "ConfluentKafkaInstrumentor"),
    "kafka": ("opentelemetry.instrumentation.kafka", "KafkaInstrumentor"),
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with broker(tmp_path_factory.mktemp("kafka")) as started:
        yield started.address


@pytest.fixture
def tracing() -> Iterator[Tracing]:
    made = Tracing()
    yield made
    made.provider.shutdown()


@pytest.fixture
def client(tracing: Tracing) -> Iterator[RecordingClient]:
    with RecordingClient(flows=False, tracer_provider=tracing.provider) as made:
        yield made


@pytest.fixture
def topic() -> str:
    return f"orders-{uuid.uuid4().hex}"


@pytest.fixture
def library(request: pytest.FixtureRequest, tracing: Tracing, needs: Callable[..., None]) -> Iterator[Any]:
    """A client library and whether it is instrumented, as the test's parameter says."""
    name, instrumented = request.param
    module, instrumentor = INSTRUMENTORS[name]
    needs(name, module)
    if not instrumented:
        yield LIBRARIES[name]
        return
    made = getattr(importlib.import_module(module), instrumentor)()
    made.instrument(tracer_provider=tracing.provider)
    yield LIBRARIES[name]
    made.uninstrument()


class Sent:
    """A message to be produced: within what, and with which headers."""

    def __init__(self, within: Any = None, headers: Callable[[], Any] = lambda: None) -> None:
        self.within = within or nullcontext()
        self.headers = headers


def by_aiokafka(address: str, topic: str, messages: list[Sent], handle: Handle) -> None:
    import aiokafka

    async def work() -> None:
        async with aiokafka.AIOKafkaProducer(bootstrap_servers=address) as producer:
            for one in messages:
                with one.within:
                    await producer.send_and_wait(topic, b"7", headers=one.headers())
        async with aiokafka.AIOKafkaConsumer(topic, bootstrap_servers=address, auto_offset_reset="earliest") as consumer:
            for _ in messages:
                handle(await asyncio.wait_for(consumer.getone(), SECONDS))

    asyncio.run(work())


def by_confluent_kafka(address: str, topic: str, messages: list[Sent], handle: Handle) -> None:
    import confluent_kafka

    producer = confluent_kafka.Producer({"bootstrap.servers": address})
    for one in messages:
        with one.within:
            producer.produce(topic, b"7", headers=one.headers() or [])
        assert producer.flush(SECONDS) == 0
    settings = {"bootstrap.servers": address, "group.id": topic, "auto.offset.reset": "earliest"}
    with closing(confluent_kafka.Consumer(settings)) as consumer:
        consumer.subscribe([topic])
        for _ in messages:
            message = until(lambda: consumer.poll(0.5), SECONDS)
            assert message.error() is None
            handle(message)


def by_kafka_python(address: str, topic: str, messages: list[Sent], handle: Handle) -> None:
    import kafka

    with closing(kafka.KafkaProducer(bootstrap_servers=address)) as producer:
        for one in messages:
            with one.within:
                producer.send(topic, b"7", headers=one.headers()).get(timeout=SECONDS)
    consumer = kafka.KafkaConsumer(
        topic, bootstrap_servers=address, auto_offset_reset="earliest", consumer_timeout_ms=SECONDS * 1000
    )
    with closing(consumer):
        for _ in messages:
            handle(next(consumer))


LIBRARIES = {"aiokafka": by_aiokafka, "confluent_kafka": by_confluent_kafka, "kafka": by_kafka_python}
ALL = [(name, instrumented) for name in LIBRARIES for instrumented in (False, True)]
IDS = [f"{name}{' instrumented' if instrumented else ''}" for name, instrumented in ALL]


def told(client: RecordingClient) -> list[tuple[str, str, str]]:
    return [(event.run_id, event.step_key, event.status) for event in client.events]


@pytest.mark.parametrize("library", ALL, ids=IDS, indirect=True)
def test_what_handles_a_message_is_of_its_producers_run_and_trace(
    library: Any, address: str, topic: str, client: RecordingClient, tracing: Tracing
) -> None:
    def headers() -> Any:
        with client.run("checkout", "r1"):
            return headers_with_run(client, [("kind", b"order")])

    def handle(message: Any) -> None:
        with consumed(client, message):
            run = client.current_run()
            assert run is not None
            run.step("reserve-stock", lambda: None)
        assert client.current_run() is None

    library(address, topic, [Sent(client.run("checkout", "r1").step("order"), headers)], handle)
    assert told(client) == [
        *(("r1", "order", "running"), ("r1", "order", "success")),
        *(("r1", "reserve-stock", "running"), ("r1", "reserve-stock", "success")),
    ]
    produced, handled = (tracing.named(f"checkout/{key}").context.trace_id for key in ("order", "reserve-stock"))
    # The instrumentation of confluent-kafka begins a trace for what handles a message, with a link to the producer's.
    linked = {link.context.trace_id for span in tracing.spans if span.context.trace_id == handled for link in span.links}
    assert produced in {handled} | linked


@pytest.mark.parametrize("library", [one for one in ALL if one[1]], ids=[name for name, on in ALL if on], indirect=True)
def test_a_run_that_the_producers_instrumentation_took_along_needs_nothing_more(
    library: Any, address: str, topic: str, client: RecordingClient, tracing: Tracing
) -> None:
    found: list[Any] = []

    def handle(message: Any) -> None:
        assert client.current_run() is None  # the consumer's instrumentation makes no run current
        with consumed(client, message, step_key="reserve-stock"):
            found.append(client.current_run())

    library(address, topic, [Sent(client.run("checkout", "r1"))], handle)
    assert [(run.flow_key, run.run_id) for run in found] == [("checkout", "r1")]
    assert told(client) == [("r1", "reserve-stock", "running"), ("r1", "reserve-stock", "success")]
    # The step lies below a span that stands for this message: the producer's, or the consumer's where that is current.
    of_the_message = {span.context.span_id for span in tracing.spans if span.kind.name in ("CONSUMER", "PRODUCER")}
    parent = tracing.named("checkout/reserve-stock").parent
    assert parent is not None
    assert parent.span_id in of_the_message


@pytest.mark.parametrize("library", [("confluent_kafka", False)], ids=["confluent_kafka"], indirect=True)
def test_a_message_of_nobodys_run_begins_one_and_each_delivery_is_an_attempt(
    library: Any, address: str, topic: str, client: RecordingClient
) -> None:
    def handle(message: Any) -> None:
        with pytest.raises(LookupError), consumed(client, message, flow="restock", step_key="reserve-stock"):
            raise LookupError("no such shelf")
        with consumed(client, message, flow="restock", step_key="reserve-stock"):
            pass

    library(address, topic, [Sent()], handle)
    (run_id,) = {event.run_id for event in client.events}
    assert run_id.startswith(f"{topic}-")
    assert run_id.endswith("-0")
    assert [event.status for event in client.events] == ["running", "error", "running", "success"]
    assert [event.error.name for event in client.events if event.error is not None] == ["LookupError"]


@pytest.mark.parametrize("library", [("aiokafka", False)], ids=["aiokafka"], indirect=True)
def test_runs_of_neighbouring_messages_do_not_mix(library: Any, address: str, topic: str, client: RecordingClient) -> None:
    def handle(message: Any) -> None:
        with consumed(client, message, step_key="reserve-stock"):
            pass

    library(address, topic, [Sent(client.run("checkout", f"r{n}"), lambda: headers_with_run(client)) for n in range(5)], handle)
    assert sorted(told(client)) == sorted(
        (f"r{number}", "reserve-stock", status) for number in range(5) for status in ("running", "success")
    )
