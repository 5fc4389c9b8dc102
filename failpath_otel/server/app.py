"""The application: which path goes where. What happens there is in the modules that it names."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from failpath_otel.server import otlp, page
from failpath_otel.server.intake import Endpoint, Intake
from failpath_otel.server.lifetime import Lifetime
from failpath_otel.server.problem import Problem
from failpath_otel.server.reads import Reads
from failpath_otel.server.security import Guard
from failpath_otel.server.services import Services
from failpath_otel.server.settings import Settings


def create_app(settings: Settings, lifetime: Lifetime | None = None) -> Starlette:
    """The server as an ASGI application. The database is opened here, and closed when the application's lifespan ends.

    Raises:
        ConfigError: The database cannot be used.
    """
    lifetime = lifetime or Lifetime()
    services = Services.open(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None, None]:
        await services.start()
        try:
            yield
        finally:
            lifetime.close()
            await services.close()

    app = Starlette(
        routes=[*api_routes(services, lifetime), *page.routes(services.queries)],
        middleware=[Middleware(Guard, settings=settings)],
        exception_handlers={Problem: _problem, HTTPException: _http_exception},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


def api_routes(services: Services, lifetime: Lifetime) -> list[BaseRoute]:
    """Every route of the API; `openapi.OPERATIONS` describes each."""
    intake = Intake(services.ingest, lifetime, services.decoders)
    reads = Reads(services.queries, services.ingest, services.changes, lifetime, services.readers)
    return [
        Route("/v1/events", Endpoint(intake.events), methods=["POST"]),
        Route("/v1/traces", Endpoint(partial(intake.otlp, otlp.TRACES)), methods=["POST"]),
        Route("/v1/logs", Endpoint(partial(intake.otlp, otlp.LOGS)), methods=["POST"]),
        Route("/api/flows", reads.flows, methods=["GET"]),
        Route("/api/runs", reads.runs, methods=["GET"]),
        Route("/api/run", reads.run, methods=["GET"]),
        Route("/api/run/events", reads.run_events, methods=["GET"]),
        Route("/api/intake", reads.intake, methods=["GET"]),
        Route("/api/live", reads.live, methods=["GET"]),
        Route("/healthz", reads.healthz, methods=["GET"]),
        Route("/openapi.json", reads.description, methods=["GET"]),
    ]


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response(request.scope)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    details = {
        404: f"There is nothing at {request.url.path[:200]!r}. GET /openapi.json lists what there is.",
        405: f"{request.method[:32]} is not possible at {request.url.path[:200]!r}. GET /openapi.json lists what is.",
    }
    detail = details.get(error.status_code, str(error.detail))
    return Problem(error.status_code, detail, headers=error.headers).response(request.scope)
