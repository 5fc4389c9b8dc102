"""Events as OTLP log records: what is on the wire, and that the server reads from it what was meant."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.sdk.resources import Resource
from support.delivery import event
from support.otlp_backend import plain

from failpath_otel.events.metadata import render
from failpath_otel.events.step import StepError, StepEvent
from failpath_otel.events.translate import last_part
from failpath_otel.exporters.otlp import encoding
from failpath_otel.exporters.otlp.encoding import Encoder
from failpath_otel.server.otlp.decode import decode_logs
from failpath_otel.version import VERSION

NOW = 1_800_000_000_000_000_000
SHOP = Resource({"service.name": "shop", "service.version": "3", "host.name": "h1"})


def encoder(resource: Resource = SHOP) -> Encoder:
    return Encoder(lambda: resource, lambda: NOW)


def bodies(events: Sequence[StepEvent], resource: Resource = SHOP) -> list[bytes]:
    """The requests; no event may be refused."""
    rejected: dict[str, str] = {}
    encoded = [body.encoded for body in encoder(resource).bodies(events, rejected)]
    assert rejected == {}
    return encoded


def request(*events: StepEvent, resource: Resource = SHOP) -> ExportLogsServiceRequest:
    (body,) = bodies(events, resource)
    return ExportLogsServiceRequest.FromString(body)


def record(sent: StepEvent) -> LogRecord:
    (group,) = request(sent).resource_logs
    (scope,) = group.scope_logs
    (found,) = scope.log_records
    return found


def attributes(carrier: Any) -> dict[str, Any]:
    return {item.key: plain(item.value) for item in carrier.attributes}


def resources(sent: ExportLogsServiceRequest) -> list[dict[str, Any]]:
    return [attributes(group.resource) for group in sent.resource_logs]


def received(*events: StepEvent) -> list[StepEvent]:
    """What the server makes of the requests."""
    out: list[StepEvent] = []
    for body in bodies(events):
        decoded = decode_logs(body, "application/x-protobuf")
        assert (decoded.rejected, decoded.unmapped, decoded.incomplete) == ([], 0, 0)
        out += decoded.events
    return out


def test_a_record_carries_every_field() -> None:
    sent = event(
        7,
        "error",
        started_at=1_700_000_000_000_000_000,
        error=StepError("CardDeclined", "insufficient funds", "Traceback …"),
        metadata={"amount": 19.5, "retries": 2, "vip": True, "items": ["tea", "pot"], "cart": {"a": [1]}, "none": None},
        service="shop",
    )
    found = record(sent)
    assert found.event_name == "failpath.step"
    assert found.trace_id.hex() == sent.trace_id
    assert found.span_id.hex() == sent.span_id
    assert (found.time_unix_nano, found.observed_time_unix_nano) == (sent.timestamp, NOW)
    assert (found.severity_number, found.severity_text) == (17, "ERROR")
    assert not found.HasField("body")
    assert attributes(found) == {
        "failpath.flow.slug": "checkout",
        "failpath.run.id": "r1",
        "failpath.step.key": "step-7",
        "failpath.step.status": "error",
        "failpath.event.id": sent.event_id,
        "failpath.step.started_at": 1_700_000_000_000_000_000,
        "exception.type": "CardDeclined",
        "exception.message": "insufficient funds",
        "exception.stacktrace": "Traceback …",
        "failpath.metadata.amount": 19.5,
        "failpath.metadata.retries": 2,
        "failpath.metadata.vip": True,
        "failpath.metadata.items": ["tea", "pot"],
        "failpath.metadata.cart": '{"a":[1]}',
    }


@pytest.mark.parametrize("status", ["running", "success", "skipped"])
def test_what_did_not_fail_is_information(status: Any) -> None:
    found = record(event(1, status, skip_reason="not paid" if status == "skipped" else None))
    assert (found.severity_number, found.severity_text) == (9, "INFO")
    expected = "not paid" if status == "skipped" else None
    assert attributes(found).get("failpath.step.skip_reason") == expected


def test_the_scope_is_ours() -> None:
    (group,) = request(event()).resource_logs
    assert (group.scope_logs[0].scope.name, group.scope_logs[0].scope.version) == ("failpath_otel", VERSION)


def test_events_of_the_resources_service_carry_all_of_it() -> None:
    resource = Resource(dict(SHOP.attributes) | {"tags": ("a", "b")}, "https://schema.test/1")
    sent = request(event(1, service="shop"), event(2, service="shop"), resource=resource)
    assert resources(sent) == [
        {"service.name": "shop", "service.version": "3", "host.name": "h1", "tags": ["a", "b"]},
    ]
    assert sent.resource_logs[0].schema_url == "https://schema.test/1"
    assert len(sent.resource_logs[0].scope_logs[0].log_records) == 2


def test_events_of_another_service_keep_its_name_and_not_the_version_of_ours() -> None:
    events = [event(1, service="shop"), event(2, service="billing"), event(3, service="shop"), event(4, service=None)]
    sent = request(*events)
    assert resources(sent) == [
        {"service.name": "shop", "service.version": "3", "host.name": "h1"},
        {"service.name": "billing", "host.name": "h1"},
        {"host.name": "h1"},
    ]
    assert sorted(received(*events), key=lambda each: each.event_id) == events


def test_a_resource_that_comes_later_is_taken_from_then_on() -> None:
    current = [Resource({"service.name": "early"}), SHOP]
    encoding = Encoder(lambda: current.pop(0), lambda: NOW)
    first, second = (next(iter(encoding.bodies([event(1, service="shop")], {}))).encoded for _ in range(2))
    assert resources(ExportLogsServiceRequest.FromString(first)) == [{"service.name": "shop"}]
    assert resources(ExportLogsServiceRequest.FromString(second))[0]["service.version"] == "3"


def test_many_services_are_all_told_apart() -> None:
    events = [event(number, service=f"s{number}") for number in range(1, 200)]
    assert received(*events) == events
    assert received(*events) == events


def test_a_batch_over_the_limit_goes_in_several_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "MAX_BODY_BYTES", 10_000)
    events = [event(number, service=f"s{number % 3}", metadata={"text": "x" * 500}) for number in range(1, 101)]
    sent = bodies(events)
    assert 5 < len(sent) < 20
    assert all(len(body) < 12_000 for body in sent)
    assert {each.event_id: each for each in received(*events)} == {each.event_id: each for each in events}


@pytest.mark.parametrize("bad", [{"timestamp": -1}, {"run_id": "\ud800"}, {"metadata": {"n": 2**70}}])
def test_an_event_that_cannot_be_encoded_is_refused_alone(bad: dict[str, Any]) -> None:
    events = [event(1), event(2, **bad), event(3)]
    rejected: dict[str, str] = {}
    (body,) = encoder().bodies(events, rejected)
    assert list(rejected) == [events[1].event_id]
    assert "cannot be encoded" in rejected[events[1].event_id]
    assert body.events == [events[0], events[2]]
    assert decode_logs(body.encoded, "application/x-protobuf").events == [events[0], events[2]]


def test_where_nothing_can_be_encoded_nothing_is_sent() -> None:
    assert list(encoder().bodies([event(1, timestamp=-1)], {})) == []


@pytest.mark.parametrize(("trace_id", "span_id"), [(None, None), ("xyz", "1"), ("g" * 32, "g" * 16)])
def test_an_event_without_a_span_goes_by_its_event_id(trace_id: str | None, span_id: str | None) -> None:
    sent = event(trace_id=trace_id, span_id=span_id, event_id="e1")
    assert received(sent) == [msgspec.structs.replace(sent, trace_id=None, span_id=None)]


# Whatever an event holds, the server reads it back; `expected` says where the two differ.

_texts = st.text(max_size=40)
_ids = st.text(min_size=1, max_size=40)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)
_times = st.integers(1, 2**63 - 1)
_errors = st.builds(StepError, name=_ids, message=_texts, stack=st.none() | _ids)


@st.composite
def _events(draw: st.DrawFn) -> StepEvent:
    status = draw(st.sampled_from(["running", "success", "error", "skipped"]))
    return StepEvent(
        event_id=draw(_ids),
        flow_key=draw(_ids),
        run_id=draw(_ids),
        step_key=draw(_ids),
        status=status,  # type: ignore[arg-type]
        timestamp=draw(_times),
        started_at=None if status == "running" else draw(st.none() | _times),
        metadata=render(draw(st.dictionaries(_texts, _values, max_size=5))),
        error=draw(st.none() | _errors) if status == "error" else None,
        trace_id=draw(st.none() | st.integers(1, 2**128 - 1).map("{:032x}".format)),
        span_id=draw(st.none() | st.integers(1, 2**64 - 1).map("{:016x}".format)),
        service=draw(st.none() | _ids),
        skip_reason=draw(st.none() | _ids) if status == "skipped" else None,
    )


def expected(sent: StepEvent) -> StepEvent:
    """What may come out otherwise, as docs/wire.md tells."""
    error = sent.error
    return msgspec.structs.replace(
        sent,
        timestamp=max(sent.timestamp, sent.started_at or 0),
        metadata={key: _as_carried(value) for key, value in sent.metadata.items() if key and value is not None},
        error=None if error is None else StepError(last_part(error.name), error.message, error.stack),
    )


def _as_carried(value: Any) -> Any:
    if isinstance(value, list) and value and type(value[0]) in (str, bool, int, float) and len(set(map(type, value))) == 1:
        return value
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return value


@given(st.lists(_events(), min_size=1, max_size=4))
def test_the_server_reads_back_what_an_event_holds(events: list[StepEvent]) -> None:
    by_service = {each.service: None for each in events}
    grouped = [each for service in by_service for each in events if each.service == service]
    assert received(*events) == list(map(expected, grouped))
