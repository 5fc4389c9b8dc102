"""From OTLP to events."""
