"""Provider, processors, sampler and exporters of a process of the service."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from failpath_otel.doctor.facts import ProcessFacts
from failpath_otel.doctor.finding import Finding, ok, problem, warning

_RATIO: Final = re.compile(r"TraceIdRatioBased\{([0-9.e-]+)\}")
_FOREIGN: Final = "Spans of libraries, and so span rules, are not seen; run.step() and record_step() report all the same."
_INSTALL: Final = "pip install opentelemetry-distro, and run the service under opentelemetry-instrument"


def judge_process(facts: ProcessFacts, app: str | None, environ: Mapping[str, str], *, spans_matter: bool) -> Iterator[Finding]:
    """Findings about tracing, in the process that was looked into.

    Args:
        facts: Of that process.
        app: The application, where one was named.
        environ: The environment.
        spans_matter: Whether runs come from spans of libraries, and so hang on the sampler.
    """
    if facts.failure is not None:
        yield _failed(facts.failure, app)
    yield from map(_logged, facts.warnings)
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        yield warning("provider", "OTEL_SDK_DISABLED is true", _FOREIGN, "Unset OTEL_SDK_DISABLED.")
        return
    if facts.provider is None:
        yield _no_provider(facts, app)
        return
    service = "" if facts.service is None else f", service.name {facts.service!r}"
    yield ok("provider", f"{facts.provider}{service}")
    yield from _processors(facts, app)
    if facts.sampler is not None:
        yield judge_sampler(facts.sampler, spans_matter=spans_matter)


def _logged(message: str) -> Finding:
    why = "OpenTelemetry or failpath-otel said this while the service was set up."
    fix = "See what it names; where it is about a library that the service does not use, it is of no matter."
    if "Overriding of current TracerProvider" in message:
        why = "Another provider was set before the service's own, whose processors and exporters are not used."
        fix = "Under opentelemetry-instrument take set_tracer_provider out of the service; or run it without."
    return warning("log", message, why, fix)


def _failed(failure: str, app: str | None) -> Finding:
    if app is None:
        return problem(
            "tracing",
            f"tracing cannot be set up as opentelemetry-instrument does: {failure}",
            "The service runs without traces then, and without what hangs on them.",
            "Put right what the message names; OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=… leaves a library out.",
        )
    return problem(
        "app",
        f"{app} cannot be imported: {failure}",
        "Only what the environment tells can be checked then.",
        "Call it from the folder from which the service is started, as --app module:attribute; --timeout gives it more time.",
    )


def _no_provider(facts: ProcessFacts, app: str | None) -> Finding:
    if app is not None:
        return warning(
            "provider",
            f"{app} sets no tracer provider when it is imported",
            f"{_FOREIGN} One that is set later, as when a web server starts, is not seen here.",
            f"Run it as the service runs: opentelemetry-instrument failpath-otel doctor --app {app}",
        )
    if not facts.zero_code:
        return warning(
            "provider",
            "opentelemetry-instrument is not installed here",
            f"{_FOREIGN} A service that sets its own provider needs it not.",
            f"{_INSTALL}; or look into the service: --app module:attribute",
        )
    return warning(
        "provider",
        "opentelemetry-instrument sets no tracer provider here",
        f"No distribution of OpenTelemetry is installed. {_FOREIGN}",
        f"{_INSTALL}; or look into the service: --app module:attribute",
    )


def _processors(facts: ProcessFacts, app: str | None) -> Iterator[Finding]:
    if not facts.takes_processors:
        yield warning(
            "processors",
            f"{facts.provider} takes no span processors",
            _FOREIGN,
            "Set a provider of the OpenTelemetry SDK, or report by run.step().",
        )
        return
    ours = [one for one in facts.processors if one.ours]
    names = ", ".join(one.name.rpartition(".")[2] for one in facts.processors) or "none"
    if ours:
        yield ok("processors", f"FailpathSpanProcessor is attached, among: {names}")
    elif not facts.processors:
        yield warning("processors", "no span processors are known", _FOREIGN, _attach(app))
    else:
        yield warning("processors", f"FailpathSpanProcessor is not attached; there are: {names}", _FOREIGN, _attach(app))
    for one in ours:
        if one.dropped:
            counts = ", ".join(f"{count} {reason}" for reason, count in sorted(one.dropped.items()))
            yield warning(
                "queue",
                f"events were dropped: {counts}",
                "Those are missing on the page.",
                "See the reasons in the documentation of DropReason; max_queue_size gives more room.",
            )
    if not any(one.exporter is not None for one in facts.processors):
        yield warning(
            "exporters",
            "no span exporter is known",
            "Spans go to no tracing backend; steps are reported all the same.",
            "Set OTEL_TRACES_EXPORTER=otlp if traces are wanted; else it is of no matter.",
        )
    for one in facts.processors:
        if one.exporter is not None:
            where = "" if one.endpoint is None else f" to {one.endpoint}"
            yield ok("exporters", f"{one.exporter.rpartition('.')[2]}{where}")


def _attach(app: str | None) -> str:
    if app is None:
        return "Set FAILPATH_PROJECT_KEY, FAILPATH_DEV_ENDPOINT or FAILPATH_EXPORTER."
    return f"Make a FailpathClient in {app.partition(':')[0]}, or run it under opentelemetry-instrument."


def judge_sampler(description: str, *, spans_matter: bool) -> Finding:
    """What a sampler that describes itself so keeps from processors."""
    if not spans_matter:
        return ok("sampler", f"{_short(description)}; steps of run.step() hang on no sampler")
    if description.startswith("RecordingSampler("):
        return ok("sampler", f"{_short(description)}: spans that could be steps are recorded all the same")
    fix = "Set FAILPATH_RECORD_UNSAMPLED=true, which records such spans without exporting them; or report by run.step()."
    ratio = _RATIO.search(description)
    if description.startswith("AlwaysOnSampler"):
        return ok("sampler", "AlwaysOnSampler: every span is seen")
    if description.startswith("AlwaysOffSampler") or "root:AlwaysOffSampler" in description:
        return warning("sampler", _short(description), f"No span is recorded. {_FOREIGN}", fix)
    if ratio is not None:
        share = f"{float(ratio[1]):.2%}".replace(".00%", "%")
        why = f"Only {share} of the traces are recorded: runs that come from spans alone are missing or incomplete."
        return warning("sampler", _short(description), why, fix)
    if description.startswith("ParentBased{root:AlwaysOnSampler"):
        return warning(
            "sampler",
            "ParentBased{root:AlwaysOnSampler}",
            "Spans are recorded unless the caller (a load balancer, another service) says that its trace is not sampled; "
            "then runs that come from spans alone are missing.",
            fix,
        )
    return warning("sampler", _short(description), "Spans that it keeps back are not seen; steps of run.step() are.", fix)


def _short(description: str) -> str:
    return description.partition(",remoteParentSampled")[0] + ("}" if ",remoteParentSampled" in description else "")
