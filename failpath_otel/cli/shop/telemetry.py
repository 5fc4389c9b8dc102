"""What a service that uses OpenTelemetry does at its start: a provider, an exporter, automatic instrumentation."""

from __future__ import annotations

from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def export_traces(service: str) -> TracerProvider:
    """Spans of this process go by OTLP to where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says, as in any service."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    HTTPXClientInstrumentor().instrument()
    return provider


def instrument(app: FastAPI) -> None:
    """Each request that ``app`` answers is a span."""
    FastAPIInstrumentor.instrument_app(app)
