"""Facts of a span or a log record become one and the same event, whichever way they come."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failpath_otel.errors import EventError
from failpath_otel.events.step import StepError
from failpath_otel.events.text import MAX_ID_CHARS
from failpath_otel.events.translate import (
    Identity,
    LogFacts,
    SpanFacts,
    exception_of,
    identity,
    last_part,
    log_recorded,
    mentions_step,
    metadata_of,
    span_ended,
    span_started,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
STEP = Identity("checkout", "req_1", "charge-card")
NAMES = ("failpath.flow.slug", "failpath.run.id", "failpath.step.key")
ATTRIBUTES = dict(zip(NAMES, ("checkout", "req_1", "charge-card"), strict=True))


def span(*, attributes: dict[str, Any] | None = None, **fields: Any) -> SpanFacts:
    given_facts: dict[str, Any] = {"trace_id": TRACE, "span_id": SPAN, "started_at": 1_000_000, "ended_at": 5_000_000}
    return SpanFacts(attributes={**ATTRIBUTES, **(attributes or {})}, **{**given_facts, **fields})


def log(*, attributes: dict[str, Any] | None = None, **fields: Any) -> LogFacts:
    given_facts: dict[str, Any] = {"trace_id": TRACE, "span_id": SPAN, "timestamp": 5_000_000}
    return LogFacts(attributes={**ATTRIBUTES, **(attributes or {})}, **{**given_facts, **fields})


def test_the_three_attributes_name_the_step() -> None:
    assert identity({**ATTRIBUTES, "http.route": "/x"}) == STEP


@pytest.mark.parametrize("missing", NAMES)
def test_two_of_the_three_attributes_are_no_step_but_are_noticed(missing: str) -> None:
    attributes = {name: value for name, value in ATTRIBUTES.items() if name != missing}
    assert identity(attributes) is None
    assert mentions_step(attributes)


def test_a_foreign_span_mentions_no_step() -> None:
    assert not mentions_step({"http.route": "/x", "failpath.metadata.x": 1})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "is empty"),
        (17, "must be text, got int"),
        ("x" * 513, "is 513 characters long; at most 512 are taken"),
    ],
)
def test_a_bad_id_is_refused_with_its_name_and_the_reason(name: str, value: Any, reason: str) -> None:
    with pytest.raises(EventError, match=reason) as caught:
        identity({**ATTRIBUTES, name: value})
    assert str(caught.value).startswith(name)


@given(st.text(min_size=1, max_size=MAX_ID_CHARS))
def test_any_text_may_be_an_id(text: str) -> None:
    assert identity(dict.fromkeys(NAMES, text)) == Identity(text, text, text)


def test_a_span_that_begins_is_running() -> None:
    event = span_started(STEP, span(attributes={"failpath.metadata.cart": "c1"}, service="shop"))
    assert event is not None
    assert (event.event_id, event.status, event.timestamp) == (f"{TRACE}-{SPAN}-start", "running", 1_000_000)
    assert (event.started_at, event.error, event.metadata, event.service) == (None, None, {"cart": "c1"}, "shop")


@pytest.mark.parametrize("status", ["skipped", "success", "error"])
def test_a_span_that_already_says_how_it_ended_never_runs(status: str) -> None:
    assert span_started(STEP, span(attributes={"failpath.step.status": status})) is None


def test_a_finished_span_is_its_outcome_and_tells_the_whole_attempt() -> None:
    event = span_ended(STEP, span())
    assert (event.event_id, event.status) == (f"{TRACE}-{SPAN}-end", "success")
    assert (event.started_at, event.timestamp, event.duration_ms) == (1_000_000, 5_000_000, 4)
    assert (event.trace_id, event.span_id) == (TRACE, SPAN)


def test_a_failed_span_tells_the_exception_that_it_recorded() -> None:
    error = StepError("CardDeclined", "insufficient funds")
    assert span_ended(STEP, span(failed=True, exception=error)).error == error


@pytest.mark.parametrize(
    ("attributes", "message", "expected"),
    [
        ({"error.type": "stripe.errors.CardDeclined"}, "no funds", StepError("CardDeclined", "no funds")),
        ({"error.type": 500}, "no funds", StepError("Error", "no funds")),
        ({}, "", StepError("Error")),
    ],
)
def test_without_an_exception_the_error_comes_from_the_spans_status(
    attributes: dict[str, Any], message: str, expected: StepError
) -> None:
    assert span_ended(STEP, span(attributes=attributes, failed=True, status_message=message)).error == expected


def test_an_exception_under_a_status_that_is_no_error_was_handled() -> None:
    event = span_ended(STEP, span(exception=StepError("Timeout")))
    assert (event.status, event.error) == ("success", None)


def test_the_declared_status_counts_more_than_the_spans() -> None:
    assert span_ended(STEP, span(attributes={"failpath.step.status": "success"}, failed=True)).status == "success"
    assert span_ended(STEP, span(attributes={"failpath.step.status": "error"})).error == StepError("Error")


def test_a_skipped_span_carries_its_reason_and_no_other_status_does() -> None:
    attributes = {"failpath.step.status": "skipped", "failpath.step.skip_reason": "opted out"}
    assert span_ended(STEP, span(attributes=attributes)).skip_reason == "opted out"
    assert span_ended(STEP, span(attributes={**attributes, "failpath.step.status": "success"})).skip_reason is None


def test_a_span_that_recorded_running_by_hand_gives_just_that() -> None:
    event = span_ended(STEP, span(attributes={"failpath.step.status": "running"}))
    assert (event.event_id, event.status, event.timestamp, event.started_at) == (
        f"{TRACE}-{SPAN}-start",
        "running",
        1_000_000,
        None,
    )


def test_an_end_before_the_start_is_taken_as_the_start() -> None:
    event = span_ended(STEP, span(started_at=9_000_000))
    assert (event.timestamp, event.started_at, event.duration_ms) == (9_000_000, 9_000_000, 0)


@pytest.mark.parametrize("status", ["done", "", 1])
def test_a_status_that_is_none_is_refused_and_the_four_are_named(status: Any) -> None:
    with pytest.raises(EventError, match=r"failpath\.step\.status must be one of error, running, skipped, success, got"):
        span_ended(STEP, span(attributes={"failpath.step.status": status}))


@pytest.mark.parametrize(
    "attributes",
    [
        {"failpath.step.status": "success"},
        {"failpath.step.status": "error", "exception.type": "app.CardDeclined", "exception.message": "no funds"},
        {"failpath.step.status": "skipped", "failpath.step.skip_reason": "opted out"},
        {"failpath.step.status": "success", "failpath.metadata.cart": "c1", "failpath.metadata.sizes": [1, 2]},
    ],
)
def test_a_span_and_its_log_record_give_the_same_event(attributes: dict[str, Any]) -> None:
    exception = exception_of(attributes)
    by_span = span_ended(STEP, span(attributes=attributes, exception=exception, service="shop"))
    by_log = log_recorded(STEP, log(attributes={**attributes, "failpath.step.started_at": 1_000_000}, service="shop"))
    assert by_log == by_span


def test_the_running_log_record_equals_the_running_of_the_span() -> None:
    by_log = log_recorded(STEP, log(attributes={"failpath.step.status": "running"}, timestamp=1_000_000))
    assert by_log == span_started(STEP, span())


def test_a_log_record_without_a_span_needs_an_event_id() -> None:
    attributes = {"failpath.step.status": "success", "failpath.event.id": "mine-end"}
    event = log_recorded(STEP, log(attributes=attributes, trace_id="", span_id=""))
    assert (event.event_id, event.trace_id, event.span_id) == ("mine-end", None, None)
    del attributes["failpath.event.id"]
    with pytest.raises(EventError, match=r"neither failpath\.event\.id nor a trace id and span id"):
        log_recorded(STEP, log(attributes=attributes, trace_id="", span_id=""))


def test_a_log_record_without_a_status_is_refused() -> None:
    with pytest.raises(EventError, match=r"failpath\.step\.status is missing"):
        log_recorded(STEP, log())


@pytest.mark.parametrize("value", ["yesterday", 0, -5, 1.5])
def test_a_start_that_is_no_time_is_left_out(value: Any) -> None:
    attributes = {"failpath.step.status": "success", "failpath.step.started_at": value}
    event = log_recorded(STEP, log(attributes=attributes))
    assert (event.started_at, event.timestamp) == (None, 5_000_000)


def test_metadata_is_what_has_the_prefix() -> None:
    attributes = {"failpath.metadata.a": 1, "failpath.metadata.b.c": [True], "failpath.metadata.": 2, "other": 3}
    assert metadata_of(attributes) == {"a": 1, "b.c": [True]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("requests.exceptions.Timeout", "Timeout"),
        ("app.pay.<locals>.Declined", "Declined"),
        ("Timeout", "Timeout"),
        ("", "Error"),
        ("...", "Error"),
    ],
)
def test_the_name_of_an_error_is_the_last_part_of_its_types_name(name: str, expected: str) -> None:
    assert last_part(name) == expected


def test_a_huge_error_is_cut() -> None:
    error = exception_of(
        {"exception.type": "a." * 400 + "T" * 9000, "exception.message": "m" * 99_999, "exception.stacktrace": "s" * 99_999}
    )
    assert error is not None
    assert error.stack is not None
    assert len(error.name.encode()) <= 512
    assert len(error.message) <= 16 * 1024
    assert len(error.stack) <= 16 * 1024


def test_attributes_without_an_exception_describe_none() -> None:
    assert exception_of({"exception.stacktrace": "only"}) is None
