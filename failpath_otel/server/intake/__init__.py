"""What takes events, spans and log records, by HTTP and gRPC."""
