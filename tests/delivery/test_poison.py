"""One event that the destination never takes: the others are sent, and it is dropped and counted. An outage drops nothing."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from support.delivery import ScriptedExporter, event, no_thread, sooner_than, until
from support.http_sink import Answer, HttpSink, Request, always, cut, hang, reply, reset

from failpath_otel import DeliveryError, FailpathClient, StepEvent
from failpath_otel.delivery import Delivery
from failpath_otel.errors import BatchRefusedError, ExportError, RejectedError, RetryableError, UnauthorizedError

Client = Callable[..., FailpathClient]
Deliver = Callable[..., Delivery]

RUNS = 1500
BAD = "DROP TABLE"
FAULTS = {"500": always(500), "503": always(503), "502 and 0 s": always(502, Retry_After="0"), "reset": reset, "cut": cut}


def to_bad_ones(sink: HttpSink, bad: Answer) -> Answer:
    """Gives ``bad`` to requests that have a bad event among theirs, and takes all others."""

    def answer(request: Request, connection: socket.socket) -> None:
        if any(BAD in str(one.get("error")) for one in request.events):
            bad(request, connection)
        else:
            connection.sendall(reply(202, sink.store(request)))

    return answer


def record_runs(failpath: FailpathClient, *bad: int, runs: int = RUNS) -> None:
    """Each run has one step, which fails with a text that the destination does not like in those of ``bad``."""
    for number in range(runs):
        error = ValueError(BAD) if number in bad else None
        status: Any = "error" if error else "success"
        failpath.record_step(flow_key="checkout", run_id=f"r{number}", step_key="pay", status=status, error=error)


class Drops(list[tuple[str, str]]):
    """What ``on_drop`` was told: run and reason."""

    def __call__(self, event: StepEvent, reason: str) -> None:
        self.append((event.run_id, reason))


def assert_all_but_one_arrived(
    sink: HttpSink, failpath: FailpathClient, drops: Drops, bad: int, reason: str, runs: int = RUNS
) -> None:
    result = failpath.flush(60_000)
    assert (result.sent, result.pending, dict(result.dropped)) == (runs - 1, 0, {reason: 1})
    until(lambda: drops == [(f"r{bad}", reason)])
    assert {one["runId"] for one in sink.events} == {f"r{number}" for number in range(runs)} - {f"r{bad}"}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_event_on_which_the_server_fails_does_not_stop_the_others(sink: HttpSink, client: Client, fault: str) -> None:
    sink.answer = to_bad_ones(sink, FAULTS[fault])
    drops, errors = Drops(), list[Exception]()
    failpath = client(endpoint=sink.url, on_drop=drops, on_error=errors.append)
    record_runs(failpath, 700)
    assert_all_but_one_arrived(sink, failpath, drops, 700, "undeliverable")
    again = [times for times in sink.arrivals.values() if times > 1]
    assert (len(again), sum(again)) <= (1, 4), "one of the others may come again, to see whether the server is there"
    assert len(sink.requests) < 50
    assert {type(error) for error in errors} == {RetryableError}
    assert failpath.stats().retries >= len(errors) - 1


@pytest.mark.parametrize("bad", [0, RUNS - 1])
def test_so_it_is_with_the_first_and_the_last(sink: HttpSink, client: Client, bad: int) -> None:
    sink.answer = to_bad_ones(sink, always(500))
    drops = Drops()
    failpath = client(endpoint=sink.url, on_drop=drops)
    record_runs(failpath, bad)
    assert_all_but_one_arrived(sink, failpath, drops, bad, "undeliverable")


def test_an_event_on_which_the_server_hangs_does_not_stop_the_others(sink: HttpSink, client: Client) -> None:
    sink.answer = to_bad_ones(sink, hang(sink))
    drops = Drops()
    failpath = client(endpoint=sink.url, on_drop=drops, send_timeout_millis=400)
    record_runs(failpath, 20, runs=40)
    # On a busy machine a good request may take longer than this as well; then it is tried again.
    assert_all_but_one_arrived(sink, failpath, drops, 20, "undeliverable", runs=40)


@pytest.mark.parametrize("status", [400, 409, 422, 401, 403, 404, 406])
def test_an_event_that_is_refused_takes_no_other_down(sink: HttpSink, client: Client, status: int) -> None:
    """By the server, or by a firewall before it that says so with the status of a wrong key or place."""
    sink.answer = to_bad_ones(sink, always(status))
    drops = Drops()
    failpath = client(endpoint=sink.url, on_drop=drops)
    record_runs(failpath, 700)
    assert_all_but_one_arrived(sink, failpath, drops, 700, "rejected")
    assert len(sink.requests) < 40
    record_runs(failpath, runs=1)
    assert failpath.flush(20_000).sent == RUNS


def test_several_are_all_found(sink: HttpSink, client: Client) -> None:
    sink.answer = to_bad_ones(sink, reset)
    drops = Drops()
    failpath = client(endpoint=sink.url, on_drop=drops)
    bad = [3, 4, 5, 900, 1200]
    record_runs(failpath, *bad)
    result = failpath.flush(60_000)
    assert (result.sent, result.dropped) == (RUNS - 5, {"undeliverable": 5})
    until(lambda: sorted(drops) == sorted((f"r{number}", "undeliverable") for number in bad))


def test_events_that_come_later_do_not_wait_for_one_that_failed_alone(deliver: Deliver) -> None:
    exporter = picky(RetryableError("500"), 2)
    delivery = deliver(exporter)
    for number in range(1, 6):
        delivery.record(event(number))
    until(lambda: len(set(exporter.numbers)) == 4)
    for number in range(6, 200):
        delivery.record(event(number))
        until(lambda: number in exporter.numbers)  # noqa: B023 - asked within this round
    until(lambda: delivery.stats().dropped == {"undeliverable": 1})
    assert set(exporter.numbers) == set(range(1, 200)) - {2}


def picky(failure: Exception, *bad: int) -> ScriptedExporter:
    """Fails where one of these is in the batch."""

    class Picky(ScriptedExporter):
        def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
            if {int(one.span_id or "0", 16) for one in batch} & set(bad):
                self.calls.append(0.0)
                raise failure
            super().export(batch, timeout_millis=timeout_millis)

    return Picky()


# Nothing is dropped that might yet be taken


@pytest.mark.parametrize("fault", FAULTS)
def test_an_outage_drops_nothing_however_long_it_takes(sink: HttpSink, client: Client, fault: str) -> None:
    sink.answer = FAULTS[fault]
    failpath = client(endpoint=sink.url)
    record_runs(failpath)
    while len(sink.requests) < 25:
        failpath.flush(20)  # which ends a backoff
    assert (failpath.stats().pending, failpath.stats().dropped) == (RUNS, {})
    sink.answer = None
    result = failpath.flush(60_000)
    assert (result.sent, result.pending, result.dropped) == (RUNS, 0, {})


def test_an_outage_is_asked_with_small_batches_and_ends_with_large_ones(sink: HttpSink, client: Client) -> None:
    sink.answer = always(500)
    failpath = client(endpoint=sink.url)
    record_runs(failpath)
    while len(sink.requests) < 10:
        failpath.flush(20)
    assert len(sink.requests[-1].events) == 1
    sink.answer, before = None, len(sink.requests)
    assert failpath.flush(60_000).sent == RUNS
    assert len(sink.requests) - before < 12


@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_that_the_server_asks_for_tells_of_the_server(sink: HttpSink, client: Client, status: int) -> None:
    sink.answer = always(status, Retry_After="0.05")
    failpath = client(endpoint=sink.url)
    record_runs(failpath, runs=20)
    sink.wait_for(lambda sink: len(sink.requests) >= 8)
    assert {len(request.events) for request in sink.requests[1:]} == {20}
    sink.answer = None
    assert failpath.flush(60_000).sent == 20


def test_an_event_that_fails_alone_is_kept_while_nothing_else_is_taken(deliver: Deliver) -> None:
    """As long as nothing beside it is taken, it may be the destination."""
    exporter = ScriptedExporter(*[RetryableError("down")] * 40)
    delivery = deliver(exporter)
    delivery.record(event(1))
    until(lambda: delivery.flush(20), 60)  # which ends a backoff
    assert (delivery.stats().sent, delivery.stats().dropped) == (1, {})


# Deadlines


@pytest.mark.parametrize("method", ["flush", "shutdown"])
def test_waiting_is_bounded_and_sends_what_it_can(sink: HttpSink, client: Client, method: str) -> None:
    sink.answer = to_bad_ones(sink, hang(sink))
    failpath = client(endpoint=sink.url, send_timeout_millis=100)
    record_runs(failpath, 3, runs=200)
    with sooner_than(60):
        getattr(failpath, method)(30_000)
    stats = failpath.stats()
    assert (stats.sent, stats.pending, sum(stats.dropped.values())) == (199, 0, 1)


@pytest.mark.parametrize("timeout_millis", [0, 1, 300])
def test_flush_keeps_its_deadline_in_the_midst_of_a_division(sink: HttpSink, client: Client, timeout_millis: int) -> None:
    sink.answer = to_bad_ones(sink, hang(sink))
    failpath = client(endpoint=sink.url, send_timeout_millis=20_000)
    record_runs(failpath, 3, runs=200)
    with sooner_than(15):
        assert not failpath.flush(timeout_millis)


def test_at_the_exit_where_no_thread_can_be_started_the_others_are_sent(
    sink: HttpSink, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink.answer = to_bad_ones(sink, always(500))
    failpath = client(endpoint=sink.url)
    start = threading.Thread.start  # for the sink's own threads

    def start_others(thread: threading.Thread) -> None:
        (no_thread if thread.name == "failpath-delivery" else start)(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_others)
        record_runs(failpath, 30, runs=100)
        result = failpath.flush(60_000)
    assert (result.sent, result.dropped) == (99, {"undeliverable": 1})


def test_a_step_that_waits_is_told_of_its_own_event_and_the_next_one_does_not_wait_for_it(
    sink: HttpSink, client: Client
) -> None:
    sink.answer = to_bad_ones(sink, always(403))
    failpath = client(endpoint=sink.url, delivery="await", raise_on_send_error=True, send_timeout_millis=20_000)
    record_runs(failpath, runs=3)
    with pytest.raises(DeliveryError, match="answered 403"):
        record_runs(failpath, 0, runs=1)
    record_runs(failpath, runs=3)
    assert (failpath.stats().sent, failpath.stats().dropped) == (6, {"rejected": 1})


# Other exporters


@pytest.mark.parametrize("failure", [BatchRefusedError("400"), ValueError("odd"), KeyError("x"), TypeError("no")])
def test_what_an_exporter_of_ones_own_refuses_is_divided(deliver: Deliver, failure: Exception) -> None:
    exporter = picky(failure, 30)
    delivery = deliver(exporter, linger_millis=60_000)
    for number in range(1, 101):
        delivery.record(event(number))
    result = delivery.flush(20_000)
    assert (result.sent, result.dropped) == (99, {"rejected": 1})


@pytest.mark.parametrize("failure", [ExportError("no"), OSError("disk full")])
def test_what_is_said_to_be_of_no_use_is_not(deliver: Deliver, failure: Exception) -> None:
    exporter = picky(failure, 30)
    delivery = deliver(exporter, linger_millis=60_000)
    for number in range(1, 101):
        delivery.record(event(number))
    assert delivery.flush(20_000).dropped == {"rejected": 100}
    assert len(exporter.calls) == 1


def test_a_rejection_by_name_of_a_part_counts_as_taken(deliver: Deliver) -> None:
    refused = RejectedError({event(7).event_id: "too old"})
    exporter = ScriptedExporter(BatchRefusedError("400"), None, refused)
    delivery = deliver(exporter, linger_millis=60_000)
    for number in range(1, 9):
        delivery.record(event(number))
    result = delivery.flush(20_000)
    assert (result.sent, result.dropped) == (7, {"rejected": 1})
    assert [len(batch) for batch in exporter.batches] == [4]


def test_each_event_is_masked_once_whatever_order_they_go_out_in(deliver: Deliver) -> None:
    masked: Counter[str] = Counter()

    def mask(event: StepEvent) -> StepEvent:
        masked[event.event_id] += 1
        return msgspec.structs.replace(event, metadata={"masked": True})

    exporter = picky(RetryableError("500"), 5)
    delivery = deliver(exporter, mask=mask)
    for number in range(1, 40):
        delivery.record(event(number, metadata={"secret": 1}))
        if number % 10 == 0:
            delivery.flush(1)
    until(lambda: len(set(exporter.numbers)) == 38)
    assert set(masked.values()) == {1}
    assert all(one.metadata == {"masked": True} for one in exporter.events)


def test_unauthorized_within_a_division_is_asked_about(deliver: Deliver) -> None:
    class Asked(ScriptedExporter):
        probes = 0

        def probe(self, *, timeout_millis: int) -> None:
            self.probes += 1

    exporter = Asked(BatchRefusedError("400"), UnauthorizedError("403"), None, UnauthorizedError("403"))
    delivery = deliver(exporter, linger_millis=60_000)
    for number in range(1, 5):
        delivery.record(event(number))
    result = delivery.flush(20_000)
    assert (result.sent, result.dropped) == (3, {"rejected": 1})
    assert exporter.probes == 1, "before the one that is dropped"


# By OTLP


@pytest.mark.parametrize(("status", "reason"), [(503, "undeliverable"), (403, "rejected")])
def test_by_otlp_over_http_too(
    sink: HttpSink, client: Client, monkeypatch: pytest.MonkeyPatch, status: int, reason: str
) -> None:
    def answer(request: Request, connection: socket.socket) -> None:
        (always(status) if BAD.encode() in request.body else always(200))(request, connection)

    sink.answer = answer
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.url)
    failpath = client(exporter="otlp")
    record_runs(failpath, 30, runs=100)
    result = failpath.flush(60_000)
    assert (result.sent, result.dropped) == (99, {reason: 1})


@pytest.mark.parametrize(("code", "reason"), [("UNAVAILABLE", "undeliverable"), ("PERMISSION_DENIED", "rejected")])
def test_by_otlp_over_grpc_too(client: Client, monkeypatch: pytest.MonkeyPatch, code: str, reason: str) -> None:
    grpc = pytest.importorskip("grpc")
    from support.otlp_grpc import grpc_sink, refused

    with grpc_sink() as sink:
        bad = refused(getattr(grpc.StatusCode, code))
        sink.answer = lambda call, context: bad(call, context) if BAD in str(call.request) else sink.take(call)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{sink.target}")
        failpath = client(exporter="otlp")
        record_runs(failpath, 30, runs=100)
        result = failpath.flush(60_000)
        assert (result.sent, result.dropped) == (99, {reason: 1})
        assert len(sink.arrivals) == 99
