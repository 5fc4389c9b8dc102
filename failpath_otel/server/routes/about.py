"""What a server tells of itself, whether it keeps runs or not: its health, what came in, its description."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from failpath_otel.server.api.intake import AboutRow
from failpath_otel.server.http.problem import Problem
from failpath_otel.server.routes import openapi
from failpath_otel.server.routes.reads import answer
from failpath_otel.server.runs.derive import QUIET_US
from failpath_otel.server.services import Services
from failpath_otel.version import VERSION

_T = TypeVar("_T")


class About:
    """One method a route."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._row = AboutRow(
            version=VERSION,
            keeps_runs=services.storage is not None,
            trace_url=services.settings.trace_url,
            stuck_after_seconds=services.settings.stuck_after_seconds,
            quiet_seconds=QUIET_US / 1_000_000,
        )

    async def about(self, _: Request) -> Response:
        """``GET /api/about``."""
        return answer(self._row)

    async def intake(self, _: Request) -> Response:
        """``GET /api/intake``."""
        counts = self._services.diagnostics.put_into(self._services.sink.intake())
        storage = self._services.storage
        return answer(counts if storage is None else await self._in_thread(lambda: storage.about_intake(counts)))

    async def healthz(self, _: Request) -> Response:
        """``GET /healthz``: 200 while events can be stored, or while there is no store.

        A server to which events go on is not asked: what a health check does, to start a server anew or to send its load to
        the next one, does not mend that. Senders learn it by 503, people by ``/api/intake``.
        """
        storage = self._services.storage
        if storage is not None and not await self._in_thread(storage.queries.healthy):
            raise Problem.busy("Events cannot be stored now: the database cannot be written.", 1.0)
        return answer(openapi.Health(status="ok"))

    async def description(self, _: Request) -> Response:
        """``GET /openapi.json``."""
        return answer(openapi.document())

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._services.readers, work)
