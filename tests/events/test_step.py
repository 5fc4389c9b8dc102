"""The event itself."""

from __future__ import annotations

from typing import Any

import pytest

from failpath_otel.events.step import STATUSES, StepError, StepEvent, event_id

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


def event(**fields: Any) -> StepEvent:
    given = {"event_id": "e", "flow_key": "checkout", "run_id": "r", "step_key": "s", "status": "success", "timestamp": 0}
    return StepEvent(**{**given, **fields})


def test_an_event_is_frozen() -> None:
    with pytest.raises(AttributeError):
        event().status = "error"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        StepError("A").name = "B"  # type: ignore[misc]


def test_events_do_not_share_their_empty_metadata() -> None:
    assert event().metadata is not event().metadata


def test_there_are_four_statuses_and_only_running_is_no_outcome() -> None:
    assert frozenset({"running", "success", "error", "skipped"}) == STATUSES
    assert {status for status in STATUSES if event(status=status).is_outcome} == STATUSES - {"running"}


def test_the_start_and_the_outcome_of_one_span_have_different_ids() -> None:
    assert event_id(TRACE, SPAN, "running") == f"{TRACE}-{SPAN}-start"
    assert {event_id(TRACE, SPAN, status) for status in STATUSES - {"running"}} == {f"{TRACE}-{SPAN}-end"}


@pytest.mark.parametrize(
    ("status", "started_at", "timestamp", "expected"),
    [
        ("success", 1_000_000, 3_500_000, 2.5),
        ("success", 1_000, 2_999, 0.001),
        ("error", 5_000_000, 4_000_000, 0),
        ("success", None, 3_500_000, None),
        ("running", 1_000_000, 3_500_000, None),
    ],
)
def test_the_duration_is_in_milliseconds_with_microseconds_and_never_negative(
    status: str, started_at: int | None, timestamp: int, expected: float | None
) -> None:
    assert event(status=status, started_at=started_at, timestamp=timestamp).duration_ms == expected
