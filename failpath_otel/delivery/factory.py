"""From options to a sink."""

from __future__ import annotations

from failpath_otel.config import Options
from failpath_otel.delivery.delivery import Delivery
from failpath_otel.delivery.sink import Sink
from failpath_otel.exporters import ConsoleExporter, EventExporter, HttpExporter, JsonlExporter, MemoryExporter
from failpath_otel.notices import warn_once


def open_sink(options: Options, user_agent: str) -> Sink | None:
    """The sink that these options ask for; ``None`` where no events are wanted."""
    if not options.enabled or options.exporter == "none":
        return None
    keyless = options.sends_to_remote and options.project_key is None
    if keyless:
        warn_once(
            "no-project-key",
            "no project key: nothing is sent to %s. Set FAILPATH_PROJECT_KEY, or FAILPATH_DEV_ENDPOINT to a server on this "
            "machine, or FAILPATH_ENABLED=false",
            options.endpoint,
        )
    return Delivery(
        _exporter(options, user_agent),
        max_queue_size=options.max_queue_size,
        send_timeout_millis=options.send_timeout_millis,
        mask=options.mask,
        on_error=options.on_error,
        on_drop=options.on_drop,
        refuse="no_project_key" if keyless else None,
    )


def _exporter(options: Options, user_agent: str) -> EventExporter:
    chosen = options.exporter
    if not isinstance(chosen, str):
        exporter: EventExporter = chosen
        return exporter
    if chosen == "console":
        return ConsoleExporter()
    if chosen == "memory":
        return MemoryExporter()
    if chosen.startswith("jsonl"):
        return JsonlExporter(chosen.partition(":")[2] or None)
    if chosen == "otlp":
        from failpath_otel.exporters.otlp.exporter import OtlpExporter  # protobuf, and perhaps gRPC, for those alone who use it

        return OtlpExporter(tracer_provider=options.tracer_provider, user_agent=user_agent)
    return http_exporter(options, user_agent)


def http_exporter(options: Options, user_agent: str) -> HttpExporter:
    """The exporter by HTTP that these options ask for."""
    return HttpExporter(
        options.endpoint,
        options.project_key,
        user_agent=user_agent,
        certificate=options.certificate,
        client_certificate=options.client_certificate,
        client_key=options.client_key,
    )
