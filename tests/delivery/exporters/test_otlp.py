"""A service whose events go out as log records, and a server that takes them: together, across forks, and to the end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import msgspec
import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from support.http_sink import HttpSink, always, hang, in_turn
from support.otlp_backend import Gate, OtlpBackend, gate, otlp_backend
from support.otlp_grpc import GrpcSink, grpc_sink
from support.otlp_grpc import hang as grpc_hang
from support.served import Client as Api
from support.served import in_thread, until
from support.shop import assert_exact, shop

from failpath_otel import FailpathClient, HttpExporter, StepEvent
from failpath_otel.exporters.otlp.exporter import OtlpExporter
from failpath_otel.server.settings import Settings

Client = Callable[..., FailpathClient]
Finish = Callable[..., dict[str, str]]


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """A server, to which the environment sends OTLP."""
    with in_thread(Settings(db=str(tmp_path / "runs.db"), port=0)) as client:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", client.url)
        yield client


@pytest.fixture
def gated(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A gate in front of the server, to which the environment sends OTLP."""
    with gate(api.url) as between:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", between.url)
        yield between


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpBackend]:
    """A backend that keeps records, to which the environment sends OTLP."""
    with otlp_backend() as other:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", other.url)
        yield other


@pytest.fixture
def grpc_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GrpcSink]:
    """A gRPC server, to which the environment sends OTLP."""
    with grpc_sink() as sink:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{sink.target}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        yield sink


def events_of(api: Api, run_id: str) -> list[dict[str, Any]]:
    reply = api.get("/api/run/events", flow="checkout", run_id=run_id)
    return list(reply.json["events"]) if reply.status == 200 else []


def run_of(api: Api, run_id: str) -> dict[str, Any]:
    reply = api.get("/api/run", flow="checkout", run_id=run_id)
    return dict(reply.json) if reply.status == 200 else {}


# With the server


def test_running_is_seen_while_the_step_runs(api: Api, client: Client) -> None:
    failpath = client(exporter="otlp")
    with failpath.run("checkout", "r1").step("pay"):
        run = until(lambda: run_of(api, "r1"), 2)
        assert [step["status"] for step in run["steps"]] == ["running"]
    assert failpath.flush()
    assert run_of(api, "r1")["status"] == "success"


def test_what_the_server_stores_is_what_it_stores_of_events_by_http(api: Api, client: Client) -> None:
    kept: list[StepEvent] = []

    class Both:
        """Sends by one way what is kept to be sent by the other."""

        def __init__(self) -> None:
            self.otlp = OtlpExporter()

        def export(self, batch: Any, /, *, timeout_millis: int) -> None:
            kept.extend(batch)
            self.otlp.export(batch, timeout_millis=timeout_millis)

        def close(self) -> None:
            self.otlp.close()

    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    failpath = client(exporter=Both(), tracer_provider=provider, capture_stack=True)
    run = failpath.run("checkout", "r1", metadata={"route": "/checkout", "tags": ["a", "b"], "n": 2**53})
    run.step("validate-cart", lambda: None)
    with pytest.raises(ValueError), run.step("charge-card", metadata={"amount": 0.1}):
        raise ValueError("no\nfunds ✓")
    run.skip("send-receipt", reason="not paid")
    failpath.record_step(
        flow_key="checkout", run_id="r1", step_key="later", status="success", timestamp=1_700_000_000_000_000_001
    )
    assert failpath.flush().sent == len(kept) == 6
    by_otlp = events_of(api, "r1")
    assert len(by_otlp) == 6
    assert {each["service"] for each in by_otlp} == {"shop"}

    # The same events once more, by the other way: nothing is new.
    before = api.get("/api/intake").json
    exporter = HttpExporter(api.url)
    exporter.export(kept, timeout_millis=5000)
    after = api.get("/api/intake").json
    assert after["duplicates"] - before["duplicates"] == 6
    assert events_of(api, "r1") == by_otlp

    # A run that came by HTTP alone is the same, save for its id.
    exporter.export(
        [msgspec.structs.replace(each, run_id="r2", event_id=each.event_id + "x") for each in kept], timeout_millis=5000
    )
    exporter.close()
    by_http = [{**each, "runId": "r1", "eventId": each["eventId"][:-1]} for each in events_of(api, "r2")]
    assert by_http == by_otlp


def test_two_clients_one_by_http_and_one_by_otlp_tell_of_one_run(api: Api, client: Client) -> None:
    """A request whose steps run in two services."""
    for number, options in enumerate(({"exporter": "otlp"}, {"endpoint": api.url})):
        failpath = client(**options)
        failpath.run("checkout", "r1").step(f"step-{number}", lambda: None)
        assert failpath.flush().sent == 2
    assert [step["stepKey"] for step in run_of(api, "r1")["steps"]] == ["step-0", "step-1"]


def test_spans_and_log_records_of_a_step_are_one_attempt(api: Api) -> None:
    with shop(exporter="otlp", spans_to=api.url) as service:
        service.checkouts(8)
        service.flush()
        assert_exact(api, service)


def test_an_outage_loses_nothing_and_doubles_nothing(gated: Gate, api: Api) -> None:
    with shop(exporter="otlp") as service:
        service.checkouts(5)
        service.client.flush()
        gated.close()
        service.checkouts(10)
        assert service.client.flush(300).pending
        gated.open()
        gated.refuse = in_turn(gated.sink, always(503, Retry_After="1"), always(429), always(502), always(504))
        assert not service.client.flush(300)
        gated.refuse = None
        service.checkouts(5)
        assert service.client.flush(20_000)
        stats = service.client.stats()
        assert (stats.pending, stats.dropped) == (0, {})
        assert stats.retries > 0
        assert_exact(api, service, events=stats.sent)


# What the records carry of the service


def test_the_resource_is_the_providers(backend: OtlpBackend, client: Client) -> None:
    provider = TracerProvider(resource=Resource({"service.name": "shop", "service.version": "3"}), shutdown_on_exit=False)
    failpath = client(exporter="otlp", tracer_provider=provider)
    failpath.run("checkout", "r1").skip("pay")
    assert failpath.flush().sent == 1
    (item,) = backend.logs
    assert item.name == "failpath.step"
    assert item.resource == {"service.name": "shop", "service.version": "3"}


def test_without_a_provider_the_resource_is_the_environments(
    backend: OtlpBackend, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry.trace import NoOpTracerProvider

    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test,service.version=4")
    failpath = client(exporter="otlp", tracer_provider=NoOpTracerProvider())
    failpath.run("checkout", "r1").skip("pay")
    assert failpath.flush().sent == 1
    (item,) = backend.logs
    assert item.resource["service.name"] == "shop"
    assert item.resource["service.version"] == "4"
    assert item.resource["deployment.environment"] == "test"
    assert item.resource["telemetry.sdk.language"] == "python"


def test_the_resource_of_the_environment_needs_no_thread_at_the_exit(
    backend: OtlpBackend, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry.trace import NoOpTracerProvider

    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setattr(Resource, "create", lambda *arguments: (_ for _ in ()).throw(RuntimeError("can't start new thread")))
    failpath = client(exporter="otlp", tracer_provider=NoOpTracerProvider())
    failpath.run("checkout", "r1").skip("pay")
    assert failpath.flush().sent == 1
    assert backend.logs[0].resource == {"service.name": "shop"}


@pytest.mark.parametrize(
    "variables", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_ATTRIBUTE_COUNT_LIMIT": "1", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "2"}]
)
def test_the_sdks_switches_and_limits_do_not_change_what_is_seen(
    backend: OtlpBackend, finish: Finish, variables: dict[str, str]
) -> None:
    finish(
        """
        client = make(exporter="otlp")
        client.run("checkout", "r1", metadata={"route": "/checkout"}).step("pay", lambda: None)
        """,
        **variables,
    )
    assert [item.attributes["failpath.step.status"] for item in backend.logs] == ["running", "success"]
    assert {item.attributes["failpath.metadata.route"] for item in backend.logs} == {"/checkout"}


def test_own_calls_are_made_with_tracing_suppressed(
    grpc_server: GrpcSink, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The instrumentation of gRPC looks at what that of others looks at."""
    from opentelemetry import context

    seen: list[object] = []

    class Looking(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            seen.append(context.get_value("suppress_instrumentation"))
            return continuation(details, request)

    open_channel = grpc.insecure_channel
    monkeypatch.setattr(grpc, "insecure_channel", lambda *given: grpc.intercept_channel(open_channel(*given), Looking()))
    failpath = client(exporter="otlp")
    failpath.run("checkout").skip("pay")
    assert failpath.flush().sent == 1
    assert seen == [True]


# Processes


def test_importing_the_package_loads_no_protobuf_and_no_grpc() -> None:
    code = """
import sys, os
import failpath_otel
heavy = lambda: sorted({name.partition(".")[0] for name in sys.modules} & {"grpc", "google"})
print(heavy())
os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:1"
failpath_otel.FailpathClient(exporter="otlp", flows=False)
print("grpc" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["[]", "False"]


STEPS = """
    failpath = make(exporter="otlp")
    run = failpath.run("checkout", "r1")
    for n in range(3000):
        run.step(f"step-{n}", lambda: None)
"""


def test_a_normal_exit_sends_everything(backend: OtlpBackend, finish: Finish) -> None:
    finish(STEPS)
    assert len({item.attributes["failpath.event.id"] for item in backend.logs}) == len(backend.logs) == 6000


def test_a_normal_exit_sends_everything_by_grpc(grpc_server: GrpcSink, finish: Finish) -> None:
    finish(STEPS)
    assert len(grpc_server.arrivals) == 6000
    assert set(grpc_server.arrivals.values()) == {1}


AT_THE_EXIT = """
    failpath = make(exporter="otlp")
    atexit.register(lambda: failpath.run("checkout", "r1").step("last", lambda: None))
    {before}
"""


@pytest.mark.parametrize("before", ["", "failpath.run('checkout', 'r0').skip('first')"])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_what_is_recorded_at_the_exit_is_sent(
    protocol: str, before: str, request: pytest.FixtureRequest, finish: Finish
) -> None:
    """Where newer Pythons start no thread any more."""
    into = request.getfixturevalue("backend" if protocol == "http" else "grpc_server")
    finish(AT_THE_EXIT.format(before=before))
    expected = 2 + bool(before)
    found = into.logs if isinstance(into, OtlpBackend) else into.arrivals
    assert len(found) == expected


LEAVES_IT_HANGING = """
    failpath = make(exporter="otlp", send_timeout_millis=60_000)
    failpath.run("checkout", "r1").step("pay", lambda: None)
    failpath.flush(300)  # the worker is within its call
    told("leaving", time.monotonic())
"""


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_exit_is_not_held_up_by_a_server_that_hangs(
    protocol: str, request: pytest.FixtureRequest, finish: Finish, sink: HttpSink
) -> None:
    if protocol == "grpc":
        server = request.getfixturevalue("grpc_server")
        server.answer = grpc_hang(server)
        told = finish(LEAVES_IT_HANGING, noise="stats() has the counts")
    else:
        sink.answer = hang(sink)
        told = finish(LEAVES_IT_HANGING, noise="stats() has the counts", OTEL_EXPORTER_OTLP_ENDPOINT=sink.url)
    # The bound, and the interpreter's own end on a busy machine; the server hangs for a minute.
    assert time.monotonic() - float(told["leaving"]) < 3 + 20


FORKS = """
    failpath = make(exporter="otlp")
    run = failpath.run("checkout", "r1")
    for number in range(50):
        run.step(f"before-{number}", lambda: None)
    failpath.flush()
    told("before", failpath.stats().sent)
    children = []
    for child in range(3):
        pid = os.fork()
        if pid == 0:
            for number in range(50):
                run.step(f"child-{child}-{number}", lambda: None)
            result = failpath.flush(20_000)
            os._exit(0 if (result.sent, result.pending) == (100, 0) else 1)
        children.append(pid)
        run.step(f"between-{child}", lambda: None)
    told("children", [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children])
    run.step("after", lambda: None)
    told("parent", failpath.flush(20_000).sent)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_forked_children_send_their_own_events_by_connections_of_their_own(
    protocol: str, request: pytest.FixtureRequest, finish: Finish
) -> None:
    into = request.getfixturevalue("backend" if protocol == "http" else "grpc_server")
    # gRPC's own note on standard error where a fork comes amid a call.
    told = finish(FORKS, noise="" if protocol == "grpc" else None)
    assert told == {"before": "100", "children": "[0, 0, 0]", "parent": "108"}
    if isinstance(into, OtlpBackend):
        assert len({item.attributes["failpath.event.id"] for item in into.logs}) == len(into.logs) == 408
        assert len({request.connection for request in into.sink.requests}) == 4
    else:
        assert len(into.arrivals) == 408
        assert set(into.arrivals.values()) == {1}
        assert len({call.peer for call in into.calls}) == 4


def test_the_processor_on_its_own_sends_log_records(backend: OtlpBackend) -> None:
    from failpath_otel import FailpathSpanProcessor

    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    processor = FailpathSpanProcessor(exporter="otlp")
    provider.add_span_processor(processor)
    names = {"failpath.flow.slug": "checkout", "failpath.run.id": "r1", "failpath.step.key": "pay"}
    with provider.get_tracer("a-library").start_as_current_span("pay", attributes=names) as span:
        expected = f"{span.get_span_context().span_id:016x}"
    assert processor.force_flush()
    assert [item.attributes["failpath.step.status"] for item in backend.logs] == ["running", "success"]
    assert {item.proto.span_id.hex() for item in backend.logs} == {expected}
    provider.shutdown()
