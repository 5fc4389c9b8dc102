"""StepEvent ↔ JSON, held to the golden files of the contract."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.golden import EVENTS, MILLI, NOON, REQUEST

from failpath_otel.errors import EventError
from failpath_otel.events.step import StepError, StepEvent
from failpath_otel.events.wire import decode_event, encode_event, format_time, join_events, parse_time, split_events, to_wire


def minimal(**changes: Any) -> bytes:
    fields = {"eventId": "e", "flowKey": "f", "runId": "r", "stepKey": "s", "status": "success"}
    return json.dumps({**fields, "timestamp": "2026-03-01T12:00:00Z", **changes}).encode()


def test_what_is_sent_is_the_golden_body() -> None:
    sent = join_events(map(encode_event, EVENTS))
    assert json.loads(sent) == json.loads(REQUEST)
    # The order of the fields as well, so that a body reads as the documentation shows it.
    assert [list(event) for event in json.loads(sent)["events"]] == [list(event) for event in json.loads(REQUEST)["events"]]


def test_the_golden_body_is_read_back_whole() -> None:
    assert tuple(map(decode_event, split_events(REQUEST))) == EVENTS


texts = st.text(min_size=1, max_size=30)
stamps = st.integers(0, 4_000_000_000_000_000).map(lambda micros: micros * 1000)


@st.composite
def events(draw: st.DrawFn) -> StepEvent:
    status = draw(st.sampled_from(["running", "success", "error", "skipped"]))
    start = draw(stamps)
    return StepEvent(
        event_id=draw(texts),
        flow_key=draw(texts),
        run_id=draw(texts),
        step_key=draw(texts),
        status=status,
        timestamp=start if status == "running" else start + draw(st.integers(0, 10**9)) * 1000,
        started_at=None if status == "running" else draw(st.none() | st.just(start)),
        metadata=draw(
            st.dictionaries(texts, st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(), max_size=4)
        ),
        error=draw(st.builds(StepError, texts, st.text(), st.none() | texts)) if status == "error" else None,
        trace_id=draw(st.none() | texts),
        span_id=draw(st.none() | texts),
        service=draw(st.none() | texts),
        skip_reason=draw(st.none() | texts) if status == "skipped" else None,
    )


@given(events())
def test_an_event_comes_through_as_it_was(event: StepEvent) -> None:
    assert decode_event(encode_event(event)) == event


def test_a_batch_of_none_is_a_body_too() -> None:
    assert join_events([]) == b'{"events":[]}'
    assert list(split_events(b'{"events":[], "later": 1}')) == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"null", b'{"events": {}}', b'{"events": [', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_batch_is_refused(body: bytes) -> None:
    with pytest.raises(EventError, match="the body must be a JSON object with a list of events"):
        split_events(body)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"runId": ""}, r"length >= 1 - at `\$\.runId`"),
        ({"runId": 7}, r"Expected `str`, got `int` - at `\$\.runId`"),
        ({"flowKey": "x" * 513}, r"length <= 512 - at `\$\.flowKey`"),
        ({"eventId": None}, r"at `\$\.eventId`"),
        ({"status": "done"}, r"'done' - at `\$\.status`"),
        ({"timestamp": "yesterday"}, r"at `\$\.timestamp`"),
        ({"timestamp": 1_772_366_400}, r"at `\$\.timestamp`"),
        ({"timestamp": "2026-03-01T12:00:00"}, r"timezone component - at `\$\.timestamp`"),
        ({"timestamp": "0001-01-01T00:00:00+14:00"}, "timestamp must lie in the years 1970 to 9999"),
        ({"timestamp": "9999-12-31T23:59:59-14:00"}, "timestamp must lie in the years 1970 to 9999"),
        ({"startedAt": "1969-12-31T23:59:59Z"}, "startedAt must lie in the years 1970 to 9999"),
        ({"metadata": [1]}, r"at `\$\.metadata`"),
        ({"error": {"message": "m"}, "status": "error"}, r"missing required field `name` - at `\$\.error`"),
    ],
)
def test_a_bad_event_is_refused_with_the_field_that_is_bad(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(EventError, match=reason):
        decode_event(minimal(**changes))


@pytest.mark.parametrize("missing", ["eventId", "flowKey", "runId", "stepKey", "status", "timestamp"])
def test_a_missing_field_is_named(missing: str) -> None:
    fields = {name: value for name, value in json.loads(minimal()).items() if name != missing}
    with pytest.raises(EventError, match=f"missing required field `{missing}`"):
        decode_event(json.dumps(fields).encode())


@pytest.mark.parametrize("raw", [b"{", b"\xff", b'{"eventId": "\xff"}', b'{"metadata":' + b"[" * 100_000, b"1" * 5000])
def test_what_is_no_json_is_refused_and_nothing_else_is_raised(raw: bytes) -> None:
    with pytest.raises(EventError):
        decode_event(raw)


def test_unknown_fields_are_passed_over() -> None:
    assert decode_event(minimal(durationMs=5, later={"x": 1})) == decode_event(minimal())


def test_a_lone_surrogate_costs_a_character_and_not_the_event() -> None:
    raw = minimal(runId="a\ud800b", metadata={"k\udfff": ["\ud83d"]})
    event = decode_event(raw)
    assert (event.run_id, event.metadata) == ("a\ufffdb", {"k\ufffd": ["\ufffd"]})


def test_an_end_before_its_start_is_taken_as_its_start() -> None:
    event = decode_event(minimal(startedAt="2026-03-01T12:00:01Z"))
    assert event.timestamp == event.started_at == NOON + 1000 * MILLI


def test_what_does_not_belong_to_the_status_is_left_out() -> None:
    extra = {"startedAt": "2026-03-01T11:00:00Z", "error": {"name": "E"}, "skipReason": "why"}
    event = decode_event(minimal(status="running", **extra))
    assert (event.started_at, event.error, event.skip_reason) == (None, None, None)


def test_long_texts_are_cut_on_the_way_in() -> None:
    event = decode_event(minimal(status="error", error={"name": "N" * 9000, "message": "m" * 99_999}, service="s" * 99_999))
    assert event.error is not None
    assert event.service is not None
    assert max(len(event.error.message), len(event.service)) <= 16 * 1024
    assert len(event.error.name.encode()) <= 512


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-01T13:00:00+01:00", NOON),
        ("2026-03-01t12:00:00z", NOON),
        ("2026-03-01T12:00:00.5Z", NOON + 500 * MILLI),
        ("2026-03-01T12:00:00.000001Z", NOON + 1000),
    ],
)
def test_times_of_any_offset_and_precision_are_read(text: str, expected: int) -> None:
    assert decode_event(minimal(timestamp=text)).timestamp == expected


def test_times_are_written_in_utc_with_microseconds_and_finer_digits_cut_off() -> None:
    assert format_time(NOON + 1_999) == "2026-03-01T12:00:00.000001Z"
    assert format_time(0) == "1970-01-01T00:00:00.000000Z"


@given(st.datetimes(timezones=st.timezones()).filter(lambda time: 1971 < time.year < 9998))
def test_time_comes_through_as_it_was(time: Any) -> None:
    written = format_time(parse_time(time))
    assert decode_event(minimal(timestamp=written)).timestamp == parse_time(time)


def test_values_that_json_cannot_hold_never_fail_the_encoding() -> None:
    event = StepEvent(
        event_id="e",
        flow_key="f",
        run_id="r",
        step_key="s",
        status="success",
        timestamp=0,
        metadata={"odd": {1, 2}, "type": int},
    )
    assert json.loads(encode_event(event))["metadata"]["type"] == "<class 'int'>"


def test_empty_fields_are_not_written() -> None:
    assert json.loads(encode_event(EVENTS[4])).keys() == {"eventId", "flowKey", "runId", "stepKey", "status", "timestamp"}
    assert to_wire(EVENTS[4]).metadata == {}
