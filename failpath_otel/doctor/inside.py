"""Run in a process of its own: imports the application, or sets tracing up, and writes down what is the case there.

``python -m failpath_otel.doctor.inside FACTS_FILE SECONDS [MODULE[:ATTRIBUTE[()]]]``. It leaves without the handlers
at exit: nothing that the application started is waited for.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import msgspec
from opentelemetry import trace

from failpath_otel import clock
from failpath_otel.doctor.destination import visit_exporter
from failpath_otel.doctor.facts import ProcessFacts, ProcessorFacts
from failpath_otel.doctor.finding import Finding
from failpath_otel.doctor.reach import Probe, probe_all
from failpath_otel.events.text import clip
from failpath_otel.tracing.processor import FailpathSpanProcessor
from failpath_otel.tracing.provider import behind, service_of

_MAX_PROCESSORS: Final = 64
_MAX_WARNINGS: Final = 20
_LEAST_SECONDS: Final = 0.5


class _Heard(logging.Handler):
    """Keeps warnings instead of printing them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.messages) < _MAX_WARNINGS:
            self.messages.append(clip(f"{record.name}: {record.getMessage()}", 512))


def main(arguments: list[str]) -> None:
    """Writes the facts."""
    began = clock.monotonic()
    heard = _Heard()
    for name in ("opentelemetry", "failpath_otel"):
        logging.getLogger(name).addHandler(heard)
    failure, zero_code = None, False
    try:
        if arguments[2:]:
            load(arguments[2])
        else:
            zero_code = _instrument()
    except BaseException as error:  # an application may leave by SystemExit, too
        failure = _told(error)
    deadline = max(began + float(arguments[1]), clock.monotonic() + _LEAST_SECONDS)
    facts = _facts(failure, zero_code, heard.messages, deadline)
    Path(arguments[0]).write_bytes(msgspec.json.encode(facts))


def load(name: str) -> Any:
    """Imports ``module``, ``module:attribute`` or, with ``()`` behind it, what that gives when it is called."""
    module, _, attribute = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in filter(None, attribute.removesuffix("()").split(".")):
        found = getattr(found, part)
    return found() if attribute.endswith("()") else found


def _instrument() -> bool:
    """Sets up what `opentelemetry-instrument` would, unless that has happened; False where it is not installed."""
    try:
        auto: Any = importlib.import_module("opentelemetry.instrumentation.auto_instrumentation")
    except ModuleNotFoundError:
        return False
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        auto.initialize(swallow_exceptions=False)
    return True


def _facts(failure: str | None, zero_code: bool, warnings: list[str], deadline: float) -> ProcessFacts:
    try:
        provider: Any = trace.get_tracer_provider()
    except Exception as error:  # OTEL_PYTHON_TRACER_PROVIDER names one that cannot be loaded
        return ProcessFacts(failure=failure or _told(error), zero_code=zero_code, warnings=warnings)
    if isinstance(provider, trace.ProxyTracerProvider):
        return ProcessFacts(failure=failure, zero_code=zero_code, warnings=warnings)
    real = behind(provider)
    processors = list(_flattened(getattr(real, "_active_span_processor", None)))
    return ProcessFacts(
        failure=failure,
        zero_code=zero_code,
        provider=_name(real),
        takes_processors=hasattr(provider, "add_span_processor"),
        sampler=_described(getattr(real, "sampler", None)),
        service=service_of(getattr(real, "resource", None)),
        processors=[_processor(one) for one in processors],
        destinations=_destinations(processors, deadline),
        warnings=warnings,
    )


def _flattened(active: Any) -> Iterator[Any]:
    """The processors; those of a provider that keeps them in another way stay unknown, for there is no public way."""
    found = 0
    waiting: list[Any] = [active]
    while waiting and found < _MAX_PROCESSORS:
        one = waiting.pop(0)
        below = getattr(one, "_span_processors", None)
        if isinstance(below, tuple | list):
            waiting[:0] = below
        elif one is not None:
            found += 1
            yield one


def _destinations(processors: list[Any], deadline: float) -> list[Finding]:
    """What the destinations of our clients answer."""
    sinks = [one.sink for one in processors if isinstance(one, FailpathSpanProcessor) and one.sink is not None]
    exporters = [exporter for sink in sinks if (exporter := getattr(sink, "exporter", None)) is not None]
    found = [visit_exporter(exporter) for exporter in exporters]
    probes = [one for one in found if isinstance(one, Probe)]
    return [*(one for one in found if isinstance(one, Finding)), *probe_all(probes, deadline)]


def _processor(one: Any) -> ProcessorFacts:
    if isinstance(one, FailpathSpanProcessor):
        stats = None if one.sink is None else one.sink.stats()
        counts = {} if stats is None else {"sent": stats.sent, "pending": stats.pending, "dropped": dict(stats.dropped)}
        return ProcessorFacts(name=_name(one), ours=True, **counts)  # type: ignore[arg-type]
    batch = getattr(one, "_batch_processor", None)
    exporter = getattr(one, "span_exporter", None) or getattr(batch, "_exporter", None)
    endpoint = getattr(exporter, "_endpoint", None)
    return ProcessorFacts(
        name=_name(one),
        exporter=None if exporter is None else _name(exporter),
        endpoint=without_secrets(endpoint) if isinstance(endpoint, str) else None,
    )


def without_secrets(url: str) -> str:
    """A URL without user, password and query, each of which may hold a secret."""
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return "a URL that cannot be read"


def _described(sampler: Any) -> str | None:
    try:
        return None if sampler is None else clip(str(sampler.get_description()), 512)
    except Exception:
        return _name(sampler)


def _name(one: object) -> str:
    return f"{type(one).__module__}.{type(one).__qualname__}"


def _told(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return clip(f"{type(error).__name__}: {error}{where}", 1024)


if __name__ == "__main__":
    main(sys.argv[1:])
    os._exit(0)
