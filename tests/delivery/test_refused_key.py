"""A refused key: one warning, counted drops, and an empty batch that asks from time to time whether it is taken again."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Sequence

import pytest
from support.delivery import ScriptedExporter, event, until
from support.http_sink import HttpSink, Request, always, hang, reply

from failpath_otel import FailpathClient, ProbingExporter
from failpath_otel.delivery import Delivery
from failpath_otel.delivery.refused_key import RefusedKey
from failpath_otel.errors import BatchRefusedError, DeliveryError, ExportError, RetryableError, UnauthorizedError
from failpath_otel.exporters import HttpExporter
from failpath_otel.exporters.otlp.exporter import OtlpExporter

Client = Callable[..., FailpathClient]
Deliver = Callable[..., Delivery]


class Clock:
    """Seconds that go on only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Asked(ScriptedExporter):
    """Can be asked: gives these answers in turn, then that all is well."""

    def __init__(self, *failures: BaseException, answers: Sequence[BaseException] = ()) -> None:
        super().__init__(*failures)
        self.answers = list(answers)
        self.probes = 0

    def probe(self, *, timeout_millis: int) -> None:
        self.probes += 1
        if self.answers:
            raise self.answers.pop(0)


NO = UnauthorizedError("401")


def test_the_destination_is_asked_after_half_a_minute_and_then_ever_more_rarely() -> None:
    clock = Clock()
    key = RefusedKey(clock)
    assert key.wait() == math.inf
    pauses = []
    for _ in range(7):
        pauses.append(key.refused())
        assert key.wait() == pauses[-1]
        clock.now += pauses[-1] + 3
        assert key.wait() == 0
    assert pauses == [30, 60, 120, 240, 480, 600, 600]
    key.taken()
    assert key.wait() == math.inf
    assert key.refused() == 30, "another time it begins anew"


def refused(deliver: Deliver, exporter: ScriptedExporter, **options: object) -> tuple[Delivery, Clock]:
    """A delivery whose key was refused for one event, and its clock."""
    clock = Clock()
    delivery = deliver(exporter, clock=clock, **options)
    delivery.record(event(1))
    assert delivery.flush(20_000).dropped == {"unauthorized": 1}
    return delivery, clock


def later(delivery: Delivery, clock: Clock, seconds: float, number: int) -> None:
    """So much later another event is recorded."""
    clock.now += seconds
    delivery.record(event(number))


def test_sending_goes_on_when_the_key_is_taken_again(deliver: Deliver, caplog: pytest.LogCaptureFixture) -> None:
    exporter = Asked(NO, answers=[NO, NO, RetryableError("502")])
    delivery, clock = refused(deliver, exporter)
    later(delivery, clock, 29, 2)
    assert delivery.flush(20_000).dropped == {"unauthorized": 2}
    assert exporter.probes == 1
    for asked, pause in ((2, 1), (3, 60), (4, 120)):
        later(delivery, clock, pause, 3)
        until(lambda: exporter.probes == asked)  # noqa: B023 - asked within this round
    until(lambda: delivery._outbox.refuse is None)
    delivery.record(event(4))
    result = delivery.flush(20_000)
    assert (result.sent, result.dropped) == (1, {"unauthorized": 5})
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "sending stops, and is tried again in 30 s",
        "events are dropped (unauthorized); stats() has the counts",
        "sending goes on",
    ]


def test_the_worker_asks_by_itself_where_nothing_is_recorded(deliver: Deliver) -> None:
    exporter = Asked(NO, answers=[NO])
    _, clock = refused(deliver, exporter)
    clock.now += 31
    until(lambda: exporter.probes == 2)
    assert len(exporter.calls) == 1


def test_each_time_it_is_refused_is_warned_of_once(deliver: Deliver, caplog: pytest.LogCaptureFixture) -> None:
    exporter = Asked(NO, NO, answers=[NO])
    delivery, clock = refused(deliver, exporter)
    later(delivery, clock, 31, 2)
    until(lambda: delivery._outbox.refuse is None)
    exporter.answers = [NO]
    later(delivery, clock, 0, 3)
    delivery.flush(20_000)
    assert sum("sending stops" in message for message in caplog.messages) == 2
    assert sum("sending goes on" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("answer", [BatchRefusedError("400: no events"), ExportError("302"), TypeError("odd")])
def test_an_answer_that_is_not_about_the_key_lets_events_be_tried(deliver: Deliver, answer: Exception) -> None:
    """A server may refuse an empty batch, for it is empty."""
    exporter = Asked(NO, answers=[NO, answer])
    delivery, clock = refused(deliver, exporter)
    later(delivery, clock, 30, 2)
    until(lambda: delivery._outbox.refuse is None)
    delivery.record(event(3))
    assert delivery.flush(20_000).sent == 1


def test_where_it_cannot_be_asked_now_the_batch_is_held(deliver: Deliver) -> None:
    exporter = Asked(NO, answers=[RetryableError("502"), RetryableError("502")])
    delivery = deliver(exporter)
    delivery.record(event(1))
    until(lambda: delivery.flush(20))
    assert exporter.probes == 3
    assert delivery.stats().dropped == {"rejected": 1}, "the empty batch was taken in the end, so it was the event"


def test_an_exporter_that_cannot_be_asked_sends_what_comes_after_a_while(deliver: Deliver) -> None:
    exporter = ScriptedExporter(NO, NO)
    delivery, clock = refused(deliver, exporter)
    later(delivery, clock, 30, 2)  # which is dropped still: it comes before the worker has seen the time
    until(lambda: delivery._outbox.refuse is None)
    delivery.record(event(3))
    assert delivery.flush(20_000).dropped == {"unauthorized": 3}
    later(delivery, clock, 59, 4)
    assert (len(exporter.calls), delivery._outbox.refuse) == (2, "unauthorized")
    later(delivery, clock, 1, 5)
    until(lambda: delivery._outbox.refuse is None)
    delivery.record(event(6))
    assert delivery.flush(20_000).sent == 1


def test_a_step_that_waits_is_told_at_once_while_the_key_is_refused(deliver: Deliver) -> None:
    delivery, _ = refused(deliver, Asked(NO, answers=[NO]))
    verdict = delivery.record_and_wait(event(2), 60_000)
    assert isinstance(verdict, DeliveryError)


def test_after_shutdown_nothing_is_asked_and_nothing_taken(deliver: Deliver) -> None:
    exporter = Asked(NO, answers=[NO])
    delivery, clock = refused(deliver, exporter)
    delivery.shutdown(20_000)
    later(delivery, clock, 1000, 2)
    until(lambda: exporter.closed)
    assert exporter.probes == 1
    assert delivery.stats().dropped == {"unauthorized": 2}


def test_where_every_part_is_refused_it_is_the_key_all_the_same(deliver: Deliver) -> None:
    """A server that takes an empty batch from anybody."""
    exporter = Asked(*[NO] * 1000)
    delivery = deliver(exporter, linger_millis=60_000)
    for number in range(1, 1001):
        delivery.record(event(number))
    dropped = delivery.flush(20_000).dropped
    assert sum(dropped.values()) == 1000
    assert dropped["unauthorized"] > 900
    assert len(exporter.calls) < 40


# Over sockets


def only_with(key: str, sink: HttpSink) -> Callable[[Request, socket.socket], None]:
    def answer(request: Request, connection: socket.socket) -> None:
        known = request.headers.get("authorization") == f"Bearer {key}"
        connection.sendall(reply(202, sink.store(request)) if known else reply(401))

    return answer


def test_a_key_that_the_server_learns_later(sink: HttpSink, deliver: Deliver) -> None:
    sink.answer = only_with("old", sink)
    clock = Clock()
    delivery = deliver(HttpExporter(sink.url, "new"), clock=clock)
    for number in range(1, 100):
        delivery.record(event(number))
    assert delivery.flush(20_000).dropped == {"unauthorized": 99}
    assert [len(request.events) for request in sink.requests][-1] == 0
    asked = len(sink.requests)
    sink.answer = only_with("new", sink)
    later(delivery, clock, 30, 100)
    sink.wait_for(lambda sink: len(sink.requests) > asked)
    until(lambda: delivery._outbox.refuse is None)
    delivery.record(event(101))
    assert delivery.flush(20_000).sent == 1
    assert [len(request.events) for request in sink.requests[asked:]] == [0, 1]


def test_an_empty_batch_that_is_not_answered_holds_flush_up_no_longer_than_it_says(sink: HttpSink, client: Client) -> None:
    def answer(request: Request, connection: socket.socket) -> None:
        (always(401) if request.events else hang(sink))(request, connection)

    sink.answer = answer
    failpath = client(endpoint=sink.url, send_timeout_millis=30_000)
    failpath.run("checkout").skip("pay")
    assert failpath.flush(300).pending == 1
    assert failpath.stats().dropped == {}


def test_the_exporters_that_can_be_asked_are_known_by_their_method() -> None:
    assert isinstance(HttpExporter("http://127.0.0.1:9"), ProbingExporter)
    assert isinstance(OtlpExporter({}), ProbingExporter)
    assert not isinstance(ScriptedExporter(), ProbingExporter)
