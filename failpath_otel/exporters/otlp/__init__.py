"""Events as OTLP log records: what the exporter sends, how, and under which settings."""
