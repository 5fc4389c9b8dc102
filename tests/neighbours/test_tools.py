"""In one process with another tracing tool: each step comes once, and what the tool holds is what it holds without us."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.http_sink import HttpSink
from support.processes import arrived, once, script, settings
from support.tools import DDTRACE, LANGFUSE, LOGFIRE, MEMORY, SDK, SENTRY, WORK, theirs

TOOLS: dict[str, tuple[str, str, dict[str, str]]] = {
    "the SDK alone": ("opentelemetry.sdk", SDK, {}),
    "logfire": ("logfire", LOGFIRE, {}),
    "langfuse": ("langfuse", LANGFUSE, {"LANGFUSE_TRACING_ENVIRONMENT": "test"}),
    "sentry in OTel mode": ("sentry_sdk", SENTRY, {"MODE": "otel"}),
    "sentry with its own tracing": ("sentry_sdk", SENTRY, {"MODE": "own"}),
    "ddtrace": (
        "ddtrace",
        DDTRACE,
        {
            "DD_TRACE_OTEL_ENABLED": "true",
            "DD_TRACE_AGENT_URL": "http://127.0.0.1:9",
            "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
            "DD_REMOTE_CONFIGURATION_ENABLED": "false",
            "DD_TRACE_STARTUP_LOGS": "false",
        },
    ),
}
STEP = ("running", "success")
# A tracing header on our own requests would make them part of the tool's traces.
HEADERS = {"traceparent", "tracestate", "baggage", "sentry-trace", "x-datadog-trace-id", "x-datadog-parent-id"}


@pytest.mark.parametrize("tool", TOOLS)
def test_what_the_tool_holds_is_the_same_and_each_step_comes_once(
    tool: str, sink: HttpSink, tmp_path: Path, needs: Callable[..., None]
) -> None:
    module, source, env = TOOLS[tool]
    needs(module)
    without, with_us = (script(tmp_path, MEMORY + source + WORK, settings(sink, {**env, "OURS": flag})) for flag in ("0", "1"))
    assert with_us.stderr == without.stderr
    held = [json.loads(done.stdout.splitlines()[-1]) for done in (without, with_us)]
    assert theirs(held[0])
    assert theirs(held[1]) == theirs(held[0])
    told = arrived(sink)["1"]
    held_times = told.pop(("held", "running"))
    assert (told.pop(("held", "success")), held_times) in {(1, 1), (2, 2), (3, 3)}
    library = [("library", status) for status in STEP if tool != "ddtrace"]
    assert told == once(
        *library, *(("own", status) for status in STEP), ("fails", "running"), ("fails", "error"),
        *(("last", status) for status in STEP),
    )  # fmt: skip
    assert set(sink.arrivals.values()) == {1}
    assert not [request.headers for request in sink.requests if HEADERS & set(request.headers)]
