"""Attribute and event names, as they stand on spans and log records."""

from __future__ import annotations

from typing import Final

FLOW_SLUG: Final = "failpath.flow.slug"
RUN_ID: Final = "failpath.run.id"
STEP_KEY: Final = "failpath.step.key"

STEP_STATUS: Final = "failpath.step.status"
SKIP_REASON: Final = "failpath.step.skip_reason"
STARTED_AT: Final = "failpath.step.started_at"
EVENT_ID: Final = "failpath.event.id"
METADATA_PREFIX: Final = "failpath.metadata."

EVENT_NAME: Final = "failpath.step"
"""The ``event_name`` of a log record that carries a step event."""

SCOPE_NAME: Final = "failpath_otel"
"""The instrumentation scope of spans that ``run.step`` opens. Such a span's events are recorded by the step
itself, so a span processor leaves it alone."""

EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
EXCEPTION_EVENT: Final = "exception"
ERROR_TYPE: Final = "error.type"
SERVICE_NAME: Final = "service.name"
