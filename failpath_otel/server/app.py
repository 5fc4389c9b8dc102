"""The application: which path goes where. What happens there is in the modules that it names."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from failpath_otel.server.http.problem import Problem
from failpath_otel.server.http.security import Guard
from failpath_otel.server.http.shutdown import Lifetime
from failpath_otel.server.intake.diagnostics import Watch
from failpath_otel.server.intake.http import Endpoint, Intake
from failpath_otel.server.otlp.decode import LOGS, TRACES
from failpath_otel.server.routes import page
from failpath_otel.server.routes.about import About
from failpath_otel.server.routes.reads import NothingKept, Reads
from failpath_otel.server.services import Services
from failpath_otel.server.settings import Settings

if TYPE_CHECKING:  # gRPC is imported only where it is asked for
    from failpath_otel.server.intake.grpc import GrpcReceiver


def create_app(settings: Settings, lifetime: Lifetime | None = None, receiver: GrpcReceiver | None = None) -> Starlette:
    """The server as an ASGI application. The database is opened here, and closed when the application's lifespan ends.

    ``receiver`` has its port already; it takes calls for as long as the lifespan lasts.

    Raises:
        ConfigError: The database cannot be used.
    """
    lifetime = lifetime or Lifetime()
    services = Services.open(settings)
    lifetime.at_close(services.begin_close)
    if receiver is not None:
        lifetime.at_close(receiver.begin_close)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None, None]:
        await services.start()
        if receiver is not None:
            await receiver.start(_intake(services, lifetime), services.diagnostics, lifetime)
        try:
            yield
        finally:
            lifetime.close()
            if receiver is not None:
                await receiver.close()
            await services.close()

    app = Starlette(
        routes=[*api_routes(services, lifetime), *page.routes()],
        middleware=[Middleware(Watch, diagnostics=services.diagnostics), Middleware(Guard, settings=settings)],
        exception_handlers={Problem: _problem, HTTPException: _http_exception},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


def api_routes(services: Services, lifetime: Lifetime) -> list[BaseRoute]:
    """Every route of the API; `openapi.OPERATIONS` describes each."""
    intake = _intake(services, lifetime)
    about = About(services)
    return [
        Route("/v1/events", Endpoint(intake.events), methods=["POST"]),
        Route("/v1/traces", Endpoint(partial(intake.otlp, TRACES)), methods=["POST"]),
        Route("/v1/logs", Endpoint(partial(intake.otlp, LOGS)), methods=["POST"]),
        *(Route(path, read, methods=["GET"]) for path, read in _reads(services, lifetime).items()),
        Route("/api/intake", about.intake, methods=["GET"]),
        Route("/api/about", about.about, methods=["GET"]),
        Route("/healthz", about.healthz, methods=["GET"]),
        Route("/openapi.json", about.description, methods=["GET"]),
    ]


def _intake(services: Services, lifetime: Lifetime) -> Intake:
    return Intake(services.sink, services.diagnostics, lifetime, services.decoders, services.rules)


def _reads(services: Services, lifetime: Lifetime) -> dict[str, Callable[[Request], Awaitable[Response]]]:
    if services.storage is None:
        refuse = NothingKept(services.destination).refuse
        return dict.fromkeys(("/api/flows", "/api/flow", "/api/runs", "/api/run", "/api/run/events", "/api/live"), refuse)
    reads = Reads(services.storage.queries, services.storage.changes, lifetime, services.readers)
    return {
        "/api/flows": reads.flows,
        "/api/flow": reads.flow,
        "/api/runs": reads.runs,
        "/api/run": reads.run,
        "/api/run/events": reads.run_events,
        "/api/live": reads.live,
    }


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
