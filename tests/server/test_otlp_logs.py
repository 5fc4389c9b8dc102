"""OTLP: what a body of log records gives."""

from __future__ import annotations

import pytest
from support.otlp_bodies import (
    END_NS,
    SPAN_ID,
    START_NS,
    TRACE_ID,
    json_logs,
    json_record,
    logs,
    only,
    records_of,
    spans_of,
    step,
    traces,
)

from failpath_otel.events.step import StepError, StepEvent

LOG = step("r1", **{"failpath.step.status": "error", "failpath.event.id": "e1", "failpath.step.started_at": START_NS - 5000})
LOG |= {"exception.type": "shop.Declined", "exception.message": "no"}


@pytest.mark.parametrize("body", [logs(LOG), json_logs(json_record(LOG))], ids=["protobuf", "json"])
def test_a_log_record_gives_the_event_that_it_carries(body):
    assert only(records_of(body)) == StepEvent(
        event_id="e1",
        flow_key="checkout",
        run_id="r1",
        step_key="charge-card",
        status="error",
        timestamp=START_NS,
        started_at=START_NS - 5000,
        error=StepError("Declined", "no"),
        trace_id=TRACE_ID.hex(),
        span_id=SPAN_ID.hex(),
        service="shop",
    )


@pytest.mark.parametrize("name", ["", "other"])
def test_older_senders_name_the_event_by_an_attribute(name):
    named = {"event.name": "failpath.step", **LOG}
    for body in (logs(named, event_name=name), json_logs(json_record(named, eventName=name))):
        assert only(records_of(body)).event_id == "e1"


def test_other_log_records_are_unmapped_and_half_named_ones_incomplete():
    half = {"failpath.flow.slug": "checkout", "failpath.step.status": "success"}
    request = logs(LOG, half)
    foreign = logs(LOG | {"failpath.event.id": "e2"}, event_name="something.else")
    for record in (request, json_logs(json_record(LOG), json_record(half))):
        decoded = records_of(record)
        assert (len(decoded.events), decoded.unmapped, decoded.incomplete) == (1, 0, 1)
    for record in (foreign, json_logs(json_record(LOG, eventName="something.else"))):
        decoded = records_of(record)
        assert (len(decoded.events), decoded.unmapped, decoded.incomplete) == (0, 1, 0)


def test_a_log_record_without_a_span_needs_an_id_of_its_own():
    for ids in ({"trace_id": b"", "span_id": b""}, {"trace_id": bytes(16), "span_id": bytes(8)}):
        event = only(records_of(logs(LOG, **ids)))
        assert (event.event_id, event.trace_id, event.span_id) == ("e1", None, None)
        without = {name: value for name, value in LOG.items() if name != "failpath.event.id"}
        assert "failpath.event.id" in records_of(logs(without, **ids)).rejected[0]


def test_a_log_record_without_a_time_takes_the_time_at_which_it_was_observed():
    assert only(records_of(logs(LOG, time_unix_nano=0, observed_time_unix_nano=START_NS + 1))).timestamp == START_NS + 1
    assert "is missing" in records_of(logs(LOG, time_unix_nano=0)).rejected[0]
    observed = json_record(LOG, timeUnixNano=0, observedTimeUnixNano=str(START_NS + 1))
    assert only(records_of(json_logs(observed))).timestamp == START_NS + 1


def test_log_and_span_of_one_step_tell_the_same():
    """Both ways through a Collector meet in one event."""
    by_log = only(
        records_of(
            logs(step("r1", **{"failpath.step.status": "success", "failpath.step.started_at": START_NS}), time_unix_nano=END_NS)
        )
    )
    assert by_log == only(spans_of(traces(step("r1"))))
