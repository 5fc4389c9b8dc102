"""Where runs begin or are gone on with: web servers, job queues, Kafka. Nothing here is imported unless asked for."""
