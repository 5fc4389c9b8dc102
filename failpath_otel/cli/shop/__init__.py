"""The demo's shop: a service as anyone could have it, with OpenTelemetry's own instrumentation and steps by the public SDK."""
