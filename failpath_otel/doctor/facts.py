"""What is the case in a process of the service: facts, without a judgement."""

from __future__ import annotations

import msgspec

from failpath_otel.doctor.finding import Finding


class ProcessorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One span processor of the provider.

    Attributes:
        name: The class.
        ours: Whether it is a `FailpathSpanProcessor`.
        exporter: The class of its exporter.
        endpoint: Where its exporter sends to, without user, password and query.
        sent, pending, dropped: Of ours: the counts of this process.
    """

    name: str
    ours: bool = False
    exporter: str | None = None
    endpoint: str | None = None
    sent: int = 0
    pending: int = 0
    dropped: dict[str, int] = {}


class ProcessFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A process in which the application was imported, or tracing was set up as `opentelemetry-instrument` does.

    Attributes:
        failure: Why that did not work.
        zero_code: Whether `opentelemetry-instrument`'s way was gone.
        provider: The class of the global tracer provider; ``None`` where none is set.
        takes_processors: Whether the provider has ``add_span_processor``.
        sampler: What the sampler says of itself.
        service: ``service.name`` of the provider's resource.
        destinations: What was found when the destinations of our clients were asked, from within: their keys stay there.
        warnings: What OpenTelemetry and we logged meanwhile.
    """

    failure: str | None = None
    zero_code: bool = False
    provider: str | None = None
    takes_processors: bool = False
    sampler: str | None = None
    service: str | None = None
    processors: list[ProcessorFacts] = []
    destinations: list[Finding] = []
    warnings: list[str] = []
