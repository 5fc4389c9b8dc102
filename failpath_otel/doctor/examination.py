"""The examination: everything that is looked at, within one deadline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from failpath_otel import clock
from failpath_otel.config import Options, resolve
from failpath_otel.doctor.configured import judge_names, judge_options, unreadable
from failpath_otel.doctor.declared import judge_flows, judge_rules, judge_targets
from failpath_otel.doctor.destination import judge_destination
from failpath_otel.doctor.facts import ProcessFacts
from failpath_otel.doctor.finding import Diagnosis, Finding, ok
from failpath_otel.doctor.process import facts_of_process
from failpath_otel.doctor.reach import Probe, connects, probe_all
from failpath_otel.doctor.surroundings import judge_django, judge_processes, judge_proxy, judge_trust
from failpath_otel.doctor.tracing import judge_process
from failpath_otel.doctor.versions import judge_versions
from failpath_otel.errors import ConfigError
from failpath_otel.zero_code import is_asked_for


def examine(app: str | None, timeout_seconds: float, environ: Mapping[str, str], folder: Path) -> Diagnosis:
    """Looks at everything. Never raises.

    Args:
        app: ``module:attribute`` of the application; without one, tracing as `opentelemetry-instrument` sets it up.
        timeout_seconds: For all of it; of that two thirds at most for the application.
        environ: The environment of this process.
        folder: The working directory.
    """
    deadline = clock.monotonic() + timeout_seconds
    facts = facts_of_process(app, timeout_seconds * 2 / 3)
    return Diagnosis(tuple(_findings(facts, app, environ, folder, deadline)))


def _findings(
    facts: ProcessFacts, app: str | None, environ: Mapping[str, str], folder: Path, deadline: float
) -> Iterator[Finding]:
    yield from judge_versions()
    yield from judge_names(environ)
    probes = [connects("exporters", one.endpoint) for one in facts.processors if one.endpoint]
    try:
        options = resolve({}, environ)
    except ConfigError as error:
        yield unreadable(error)
        spans_matter = True
    else:
        # A client of the application may have its key and its endpoint from elsewhere, and then it was asked from within.
        in_code = bool(app and facts.destinations)
        yield from judge_options(options, environ, in_code=in_code)
        yield from judge_flows(options.flows, folder)
        about_rules, rules = judge_rules(options.rules, folder)
        yield about_rules
        yield from judge_targets(rules, options.flows, folder)
        spans_matter = bool(len(rules)) or (app is None and facts.zero_code)
        if not facts.destinations and options.enabled and is_asked_for(environ):
            yield from _where(options, probes)
        if options.exporter == "http" and not in_code:
            yield judge_proxy(options.endpoint)
            yield from judge_trust(options.endpoint, options.tls, environ)
    yield from judge_process(facts, app, environ, spans_matter=spans_matter)
    yield from judge_processes(environ, folder)
    yield from judge_django(environ, folder)
    yield from facts.destinations
    yield from probe_all(probes, deadline)
    yield ok("counts", "of a running process: client.stats(), or failpath_otel.zero_code.client().stats()")


def _where(options: Options, probes: list[Probe]) -> Iterator[Finding]:
    try:
        found = judge_destination(options)
    except ConfigError as error:  # OpenTelemetry's own variables, which the OTLP exporter reads
        yield unreadable(error)
        return
    if isinstance(found, Probe):
        probes.insert(0, found)
    else:
        yield found
