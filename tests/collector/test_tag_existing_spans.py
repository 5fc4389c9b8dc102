"""tag-existing-spans.yaml: spans of services that send no steps become steps, and the backend gets them as they were."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from support.collector import CONFIGS, Collector, StartCollector, validate
from support.otlp_backend import OtlpBackend
from support.otlp_bodies import PROTOBUF, TRACE_ID, add_span
from support.served import Client, environment, until
from support.shop import assert_exact, run_ids, shop

CONFIG = "tag-existing-spans.yaml"
# Shipped is `ignore`. Here a statement or condition that fails on a span costs the request, and so is seen.
STRICT = ("--config", "yaml:processors: {transform/tag: {error_mode: propagate}, filter/failpath: {error_mode: propagate}}")
SERVER, CLIENT, CONSUMER = 2, 3, 5
ERROR = {"code": 2}

CHARGE = {"http.route": "/charge", "http.request.method": "POST"}
OLD_CHARGE = {"http.route": "/charge", "http.method": "POST"}
INSERT = {"db.system.name": "postgresql", "db.operation.name": "INSERT", "db.collection.name": "orders"}
OLD_INSERT = {"db.system": "postgresql", "db.operation": "INSERT", "db.sql.table": "orders"}
RECEIPT = {"messaging.system": "kafka", "messaging.destination.name": "receipts"}


@pytest.fixture
def collector(start_collector: StartCollector, api: Client, backend: OtlpBackend) -> Collector:
    return start_collector(CONFIG, {"FAILPATH_ENDPOINT": api.url, "BACKEND_ENDPOINT": backend.url}, arguments=STRICT)


class Trace:
    """One request with spans of any service, under one trace id."""

    def __init__(self, trace_id: bytes = TRACE_ID) -> None:
        self.request = ExportTraceServiceRequest()
        self.trace_id = trace_id

    def span(self, service: str | None, attributes: dict[str, Any], kind: int = SERVER, **fields: Any) -> Any:
        span_id = (len(self.request.resource_spans) + 1).to_bytes(8, "big")
        known = {"trace_id": self.trace_id, "span_id": span_id, "kind": kind}
        made = add_span(self.request, attributes, service=service, **{**known, **fields})
        made.status.SetInParent()  # a Collector writes the status of every span, also where it is empty
        return made

    def send(self, collector: Collector) -> None:
        with contextlib.closing(Client(collector.endpoint)) as sender:
            reply = sender.post("/v1/traces", self.request.SerializeToString(), {"Content-Type": PROTOBUF})
            assert reply.status == 200, reply.body

    def arrived_unchanged(self, backend: OtlpBackend) -> None:
        """The backend has each of these spans as it was sent, and its resource."""
        sent = {group.scope_spans[0].spans[0].span_id: group for group in self.request.resource_spans}
        until(lambda: {item.proto.span_id for item in backend.traces} >= set(sent))
        got = {item.proto.span_id: item for item in backend.traces}
        for span_id, group in sent.items():
            assert got[span_id].proto == group.scope_spans[0].spans[0]
            assert got[span_id].resource == {pair.key: pair.value.string_value for pair in group.resource.attributes}
        assert len(backend.traces) == len(sent)


def steps(api: Client, run_id: str) -> dict[str, str]:
    """The steps of a run that arrived, with their status."""
    reply = api.get("/api/run", flow="checkout", run_id=run_id)
    if reply.status != 200:
        return {}
    return {step["stepKey"]: step["status"] for step in reply.json["steps"] if step["status"] != "missing"}


def events(api: Client, run_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get("/api/run/events", flow="checkout", run_id=run_id).json["events"]
    return found


def test_the_configuration_is_valid() -> None:
    validate(CONFIGS / CONFIG)


@pytest.mark.parametrize(("charge", "insert"), [(CHARGE, INSERT), (OLD_CHARGE, OLD_INSERT)], ids=["stable", "before"])
def test_spans_of_foreign_services_are_the_steps_of_one_run_and_reach_the_backend_unchanged(
    charge: dict[str, Any], insert: dict[str, Any], collector: Collector, api: Client, backend: OtlpBackend
) -> None:
    order = {"order.id": "o-1"}
    done = Trace()
    done.span("orders", order, kind=1, name="CartValidator.validate")
    done.span("payments", {**charge, **order, "http.response.status_code": 200}, name="POST /charge")
    done.span("orders", {**insert, **order}, kind=CLIENT, name="INSERT orders")
    done.span("mailer", {**RECEIPT, **order}, kind=CONSUMER, name="process receipts", status=ERROR)
    done.send(collector)
    known = {"validate-cart": "success", "charge-card": "success", "create-order": "success", "send-receipt": "error"}
    until(lambda: steps(api, "o-1") == known)
    done.arrived_unchanged(backend)
    assert run_ids(api) == {"o-1"}
    services = {event["stepKey"]: event["service"] for event in events(api, "o-1")}
    assert services == {
        "validate-cart": "orders",
        "charge-card": "payments",
        "create-order": "orders",
        "send-receipt": "mailer",
    }


def test_spans_that_match_no_rule_wholly_are_no_steps(collector: Collector, api: Client, backend: OtlpBackend) -> None:
    done = Trace()
    done.span("shop", CHARGE)
    done.span(None, CHARGE)
    done.span("payments", CHARGE, kind=CLIENT)
    done.span("payments", {**CHARGE, "http.request.method": "GET"})
    done.span("payments", {"http.route": "/charge"})
    done.span("payments", {**CHARGE, "http.route": "/charge/{id}"})
    done.span("payments", {**CHARGE, "http.route": 7, "http.request.method": ["POST"]})
    done.span("orders", {**INSERT, "db.collection.name": "carts"}, kind=CLIENT)
    done.span("orders", {**INSERT, "db.operation.name": "SELECT"}, kind=CLIENT)
    done.span("orders", {}, kind=1, name="a CartValidator.validate")
    done.span("orders", {}, kind=1, name="CartValidator.validateAll")
    done.span("mailer", RECEIPT, kind=4)
    done.span("payments", {**CHARGE, "order.id": "o-2"})
    done.send(collector)
    until(lambda: steps(api, "o-2"))
    done.arrived_unchanged(backend)
    assert run_ids(api) == {"o-2"}
    # What is no step is not even sent.
    assert api.get("/api/intake").json["unmapped"] == 0


@pytest.mark.parametrize(
    ("attributes", "status", "outcome"),
    [
        ({"http.response.status_code": 200}, {}, ("success", None)),
        ({"http.response.status_code": 404}, {}, ("success", None)),
        ({"http.response.status_code": 402}, {}, ("error", "HTTP 402")),
        ({"http.status_code": 402, "error.type": "com.shop.CardDeclined"}, {}, ("error", "CardDeclined")),
        ({"http.response.status_code": 503}, {}, ("error", "HTTP 503")),
        ({"http.status_code": 500}, {}, ("error", "Error")),
        ({"http.response.status_code": "503"}, {}, ("success", None)),
        ({"http.response.status_code": 500, "error.type": "500"}, ERROR, ("error", "500")),
        ({}, ERROR, ("error", "Error")),
        ({"http.response.status_code": 503, "failpath.step.status": "skipped"}, {}, ("skipped", None)),
    ],
)
def test_the_outcome_follows_the_status_of_the_span_and_of_the_response(
    attributes: dict[str, Any],
    status: dict[str, Any],
    outcome: tuple[str, str | None],
    collector: Collector,
    api: Client,
    backend: OtlpBackend,
) -> None:
    done = Trace()
    done.span("payments", {**CHARGE, "order.id": "o-3", **attributes}, status=status)
    done.send(collector)
    until(lambda: steps(api, "o-3"))
    event = events(api, "o-3")[0]
    assert (event["status"], event.get("error", {}).get("name")) == outcome
    done.arrived_unchanged(backend)


HEADER = "http.request.header.x-request-id"
HOSTILE: list[tuple[dict[str, Any], str | None]] = [
    ({"order.id": "o 1/ü?&\n"}, "o 1/ü?&\n"),
    ({"order.id": 4711}, "4711"),
    ({"order.id": -1}, "-1"),
    ({"order.id": 9_007_199_254_740_993}, "9007199254740993"),
    ({"order.id": 12.5}, "12.5"),
    ({}, None),
    ({"order.id": ""}, None),
    ({"order.id": True}, None),
    ({"order.id": ["o-1"]}, None),
    ({"order.id": {"id": "o-1"}}, None),
    ({"order.id": b"o-1"}, None),
    ({HEADER: ["req-1", "req-2"]}, "req-1"),
    ({HEADER: []}, None),
    ({HEADER: [""]}, None),
    ({HEADER: [7]}, "7"),
    ({HEADER: "req-3"}, None),
    ({"order.id": "", HEADER: ["req-4"]}, "req-4"),
    ({"order.id": "o-5", HEADER: ["req-5"]}, "o-5"),
    ({"failpath.run.id": "run-6", "order.id": "o-6"}, "run-6"),
    ({"failpath.run.id": "", "order.id": "o-7"}, "o-7"),
]


def test_whatever_stands_where_an_id_should_be_each_span_is_a_step_of_a_run(
    collector: Collector, api: Client, backend: OtlpBackend
) -> None:
    wanted = set()
    done = Trace()
    for number, (attributes, run_id) in enumerate(HOSTILE, 1):
        trace_id = number.to_bytes(16, "big")
        wanted.add(run_id or trace_id.hex())
        done.span("payments", {**CHARGE, **attributes}, trace_id=trace_id)
    done.send(collector)
    until(lambda: len(run_ids(api)) >= len(HOSTILE))
    assert run_ids(api) == wanted
    done.arrived_unchanged(backend)


def test_a_span_that_the_server_refuses_costs_no_other(collector: Collector, api: Client, backend: OtlpBackend) -> None:
    done = Trace()
    done.span("payments", {**CHARGE, "order.id": "o-8"})
    done.span("payments", {**CHARGE, "order.id": "x" * 513})
    done.span("payments", {**CHARGE, "order.id": "o-10"}, trace_id=b"")
    done.span("orders", {**INSERT, "order.id": "o-8"}, kind=CLIENT)
    done.send(collector)
    until(lambda: steps(api, "o-8") == {"charge-card": "success", "create-order": "success"})
    done.arrived_unchanged(backend)
    assert run_ids(api) == {"o-8"}
    until(lambda: "is 513 characters long" in collector.said(1000))
    assert "trace_id must be 16 bytes, got 0" in collector.said(1000)
    assert '"dropped_spans": 2' in collector.said(1000)


def test_steps_of_a_service_of_ours_stay_as_they_are(collector: Collector, api: Client, backend: OtlpBackend) -> None:
    with shop(spans_to=collector.endpoint) as service:
        service.checkouts(8)
        service.flush()
        assert_exact(api, service, events=service.attempts)
    until(lambda: len(backend.traces) == service.attempts)
    assert {item.name.partition("/")[0] for item in backend.traces} == {"checkout"}


def test_a_span_that_names_a_step_already_stays_as_it_is(collector: Collector, api: Client, backend: OtlpBackend) -> None:
    own = {"failpath.flow.slug": "checkout", "failpath.step.key": "validate-cart", "failpath.run.id": "own-1"}
    done = Trace()
    done.span("payments", {**CHARGE, **own, "order.id": "o-11", "http.response.status_code": 503})
    # One that is named in part is not completed: that is for whoever named it.
    done.span("payments", {**CHARGE, "failpath.flow.slug": "checkout", "order.id": "o-12"})
    done.send(collector)
    until(lambda: steps(api, "own-1") == {"validate-cart": "success"})
    done.arrived_unchanged(backend)
    assert run_ids(api) == {"own-1"}
    assert api.get("/api/intake").json["incomplete"] == 1


def test_spans_of_the_python_sdk_without_steps_are_steps_of_the_run_that_is_their_trace(
    collector: Collector, api: Client, backend: OtlpBackend
) -> None:
    with contextlib.ExitStack() as ends:
        tracers = {}
        for service in ("payments", "orders"):
            provider = TracerProvider(resource=Resource({"service.name": service}), shutdown_on_exit=False)
            provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{collector.endpoint}/v1/traces")))
            ends.callback(provider.shutdown)
            tracers[service] = provider.get_tracer("http")
        with tracers["orders"].start_as_current_span("POST /orders", kind=trace.SpanKind.SERVER) as outer:
            with tracers["orders"].start_as_current_span("CartValidator.validate"):
                pass
            with (
                contextlib.suppress(TimeoutError),
                tracers["payments"].start_as_current_span("POST /charge", kind=trace.SpanKind.SERVER, attributes=CHARGE),
            ):
                raise TimeoutError("the bank does not answer")
    run_id = f"{outer.get_span_context().trace_id:032x}"
    until(lambda: steps(api, run_id) == {"validate-cart": "success", "charge-card": "error"})
    error = next(event["error"] for event in events(api, run_id) if event["stepKey"] == "charge-card")
    assert (error["name"], error["message"]) == ("TimeoutError", "the bank does not answer")
    until(lambda: backend.names() == ["CartValidator.validate", "POST /charge", "POST /orders"])


def test_spans_of_telemetrygen_are_steps(collector: Collector, api: Client, backend: OtlpBackend, telemetrygen: Path) -> None:
    arguments = ["traces", "--otlp-insecure", "--otlp-endpoint", collector.grpc_endpoint, "--traces", "5", "--rate", "0"]
    attributes = ['http.route="/charge"', 'http.request.method="POST"']
    for attribute in attributes:
        arguments += ["--telemetry-attributes", attribute]
    done = subprocess.run(
        [telemetrygen, *arguments, "--service", "payments", "--status-code", "Error"],
        env=environment({"HOME": os.environ.get("HOME", "/")}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Each trace has a span of the caller, which is no step, and one of the server.
    until(lambda: len(run_ids(api)) == 5)
    until(lambda: len(backend.traces) == 10)
    assert run_ids(api) == {item.proto.trace_id.hex() for item in backend.traces}
    for run_id in run_ids(api):
        assert steps(api, run_id) == {"charge-card": "error"}
    assert not any(name.startswith("failpath.") for item in backend.traces for name in item.attributes)
