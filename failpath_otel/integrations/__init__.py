"""Where runs begin: web servers (`asgi`, `wsgi`) and task queues (`celery`). Nothing here is imported unless asked for."""
