"""Where events go: whether it is there and takes ours, by an empty batch, of which nothing is stored."""

from __future__ import annotations

import email.utils
from typing import Any, Final

from failpath_otel import clock
from failpath_otel.config import Options
from failpath_otel.delivery.factory import http_exporter
from failpath_otel.doctor.finding import Finding, ok, problem, warning
from failpath_otel.doctor.intake import judge_intake
from failpath_otel.doctor.reach import Probe, no_answer
from failpath_otel.errors import BatchRefusedError, ExportError, RetryableError, UnauthorizedError
from failpath_otel.exporters.http import HttpExporter
from failpath_otel.version import VERSION

CHECK: Final = "destination"
_SKEW_SECONDS: Final = 5.0
_AGENT: Final = f"failpath-otel/{VERSION} doctor"


def judge_destination(options: Options) -> Finding | Probe:
    """A finding where nothing has to be asked, else whom to probe.

    Raises:
        ConfigError: One of OpenTelemetry's own variables cannot be used.
    """
    exporter = options.exporter
    if exporter == "http":
        return visit_exporter(http_exporter(options, _AGENT))
    if exporter == "otlp":
        from failpath_otel.exporters.otlp.exporter import OtlpExporter

        return visit_exporter(OtlpExporter(tracer_provider=options.tracer_provider, user_agent=_AGENT))
    if exporter in ("none", "memory"):
        return warning(
            CHECK,
            f"FAILPATH_EXPORTER is {exporter}",
            "Events leave this process by no way; steps are spans only." if exporter == "none" else "Events stay in memory.",
            "Unset FAILPATH_EXPORTER, or set it to http or otlp.",
        )
    return ok(CHECK, f"events go to {exporter}")


def visit_exporter(exporter: Any) -> Finding | Probe:
    """The probe to an exporter's destination; a finding where it is of a kind that cannot be asked."""
    if not callable(getattr(exporter, "probe", None)):
        return ok(CHECK, f"events go to {type(exporter).__name__}, which cannot be asked")
    return Probe(CHECK, repr(exporter), lambda seconds: _ask(exporter, seconds))


def _ask(exporter: Any, seconds: float) -> list[Finding]:
    """Findings about the answer to an empty batch."""
    asked_at, sent_at = clock.monotonic(), clock.time_ns() / 1e9
    try:
        answer = exporter.probe(timeout_millis=max(1, int(seconds * 1000)))
    except ExportError as error:
        return [_refused(error)]
    found = [ok(CHECK, f"{exporter!r} is reached, and takes what comes"), *_clock(answer, sent_at, clock.time_ns() / 1e9)]
    if isinstance(exporter, HttpExporter):
        found += judge_intake(exporter.endpoint, exporter.tls, max(0.05, asked_at + seconds - clock.monotonic()))
    return found


def _refused(error: ExportError) -> Finding:
    if isinstance(error, UnauthorizedError):
        return problem(
            CHECK,
            str(error),
            "Whoever is there does not take the key; the client drops what is recorded until it does.",
            "Set FAILPATH_PROJECT_KEY to the key of this project, or of failpath-otel serve to its ingest key.",
        )
    if isinstance(error, RetryableError):
        return no_answer(CHECK, str(error))
    explanation = "It answers, and not as the wire is described: another service may listen there."
    if isinstance(error, BatchRefusedError):
        explanation = "It refuses a batch without an event in it, and so perhaps every one."
    return problem(CHECK, str(error), explanation, "Correct FAILPATH_DEV_ENDPOINT: the base URL, without /v1/events.")


def _clock(answer: Any, sent_at: float, answered_at: float) -> list[Finding]:
    """The clocks, as near as a header with whole seconds tells."""
    try:
        theirs = email.utils.parsedate_to_datetime(str(answer.headers["Date"])).timestamp()
    except (AttributeError, KeyError, ValueError, TypeError, OverflowError):
        return []
    off = max(theirs - answered_at, sent_at - (theirs + 1), 0.0)
    if off <= _SKEW_SECONDS:
        return [ok("clock", "this machine and the server agree to a few seconds")]
    ahead = "behind" if theirs > answered_at else "ahead of"
    return [
        warning(
            "clock",
            f"this machine is {off:.0f} s {ahead} the server",
            "Runs stand at the wrong time, and steps of several machines in the wrong order.",
            "Set the clock by NTP on both.",
        )
    ]
