"""The golden files of the wire, and the events that they hold."""

from __future__ import annotations

from pathlib import Path

from failpath_otel.events.step import StepError, StepEvent

_FOLDER = Path(__file__).parent.parent / "golden"
REQUEST = (_FOLDER / "events-request.json").read_bytes()
"""A body of ``POST /v1/events`` with each kind of event."""
ANSWER = (_FOLDER / "events-response.json").read_bytes()
"""An answer with all three counts."""
PROBE = (_FOLDER / "probe-request.json").read_bytes()
"""A body of ``POST /v1/events`` that asks whether events would be taken."""
PROBE_ANSWER = (_FOLDER / "probe-response.json").read_bytes()
"""The answer to it."""

TRACE = "0af7651916cd43dd8448eb211c80319c"
NOON = 1_772_366_400_000_000_000  # 2026-03-01T12:00:00Z
MILLI = 1_000_000
RUNNING_METADATA = {"route": "/checkout", "attempt": 1}

EVENTS = (
    StepEvent(
        event_id=f"{TRACE}-b7ad6b7169203331-start",
        flow_key="checkout",
        run_id="req_123",
        step_key="charge-card",
        status="running",
        timestamp=NOON,
        metadata=RUNNING_METADATA,
        trace_id=TRACE,
        span_id="b7ad6b7169203331",
        service="shop",
    ),
    StepEvent(
        event_id=f"{TRACE}-b7ad6b7169203331-end",
        flow_key="checkout",
        run_id="req_123",
        step_key="charge-card",
        status="error",
        timestamp=NOON + 250_500_000,
        started_at=NOON,
        metadata={**RUNNING_METADATA, "cart": {"items": [1, 2.5, "x"], "gift": False, "note": None}},
        error=StepError("CardDeclined", "insufficient funds", "Traceback (most recent call last):\n  …"),
        trace_id=TRACE,
        span_id="b7ad6b7169203331",
        service="shop",
    ),
    StepEvent(
        event_id=f"{TRACE}-00f067aa0ba902b7-end",
        flow_key="checkout",
        run_id="req_123",
        step_key="reserve-stock",
        status="success",
        timestamp=NOON + 1000 * MILLI + 1000,
        started_at=NOON + 1000 * MILLI - 1000,
        trace_id=TRACE,
        span_id="00f067aa0ba902b7",
    ),
    StepEvent(
        event_id=f"{TRACE}-53995c3f42cd8ad8-end",
        flow_key="checkout",
        run_id="req_123",
        step_key="send-receipt-email",
        status="skipped",
        timestamp=NOON + 2000 * MILLI,
        started_at=NOON + 2000 * MILLI,
        trace_id=TRACE,
        span_id="53995c3f42cd8ad8",
        skip_reason="opted out",
    ),
    StepEvent(
        event_id="by-hand-1",
        flow_key="Zahlung / κάρτα",
        run_id="a b/c?d=é&日本",
        step_key="prüfen.1",
        status="success",
        timestamp=NOON + 3000 * MILLI,
    ),
)
