"""StepEvent → what a log record named ``failpath.step`` carries. `translate.log_recorded` reads it back.

There is no body: the conventions for events want the details in attributes.
"""

from __future__ import annotations

from typing import Final

from failpath_otel.events import semconv
from failpath_otel.events.metadata import AttributeValue, as_attributes
from failpath_otel.events.step import StepEvent

SEVERITY_INFO: Final = 9
SEVERITY_ERROR: Final = 17


def severity_of(event: StepEvent) -> tuple[int, str]:
    """OpenTelemetry's severity number and text."""
    return (SEVERITY_ERROR, "ERROR") if event.status == "error" else (SEVERITY_INFO, "INFO")


def log_attributes(event: StepEvent) -> dict[str, AttributeValue]:
    """The attributes; trace id, span id and time have fields of their own on the record.

    Metadata that no attribute can hold travels as JSON text, and ``None`` not at all.
    """
    attributes: dict[str, AttributeValue] = {
        semconv.FLOW_SLUG: event.flow_key,
        semconv.RUN_ID: event.run_id,
        semconv.STEP_KEY: event.step_key,
        semconv.STEP_STATUS: event.status,
        semconv.EVENT_ID: event.event_id,
    }
    if event.started_at is not None and event.is_outcome:
        attributes[semconv.STARTED_AT] = event.started_at
    if event.skip_reason is not None:
        attributes[semconv.SKIP_REASON] = event.skip_reason
    if event.error is not None:
        attributes[semconv.EXCEPTION_TYPE] = event.error.name
        attributes[semconv.EXCEPTION_MESSAGE] = event.error.message
        if event.error.stack:
            attributes[semconv.EXCEPTION_STACKTRACE] = event.error.stack
    if event.metadata:
        attributes.update(as_attributes(event.metadata))
    return attributes
