"""What a server tells of itself, whether it keeps runs or not: its health, what came in, its description."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from starlette.requests import Request
from starlette.responses import Response

from failpath_otel.server import openapi
from failpath_otel.server.derive import QUIET_US
from failpath_otel.server.intake_rows import AboutRow
from failpath_otel.server.problem import Problem
from failpath_otel.server.queries import Queries
from failpath_otel.server.reads import answer
from failpath_otel.server.settings import Settings
from failpath_otel.server.taking import Taker
from failpath_otel.version import VERSION


class About:
    """One method a route."""

    def __init__(self, taker: Taker, queries: Queries | None, pool: Executor, settings: Settings) -> None:
        self._taker = taker
        self._queries = queries
        self._pool = pool
        self._row = AboutRow(
            version=VERSION,
            trace_url=settings.trace_url,
            stuck_after_seconds=settings.stuck_after_seconds,
            quiet_seconds=QUIET_US / 1_000_000,
        )

    async def about(self, _: Request) -> Response:
        """``GET /api/about``."""
        return answer(self._row)

    async def intake(self, _: Request) -> Response:
        """``GET /api/intake``."""
        return answer(self._taker.intake())

    async def healthz(self, _: Request) -> Response:
        """``GET /healthz``: 200 while events can be stored, or while there is no store.

        A server to which events go on is not asked: what a health check does, to start a server anew or to send its load to
        the next one, does not mend that. Senders are told by 503, people by ``/api/intake``.
        """
        if self._queries is not None:
            healthy = await asyncio.get_running_loop().run_in_executor(self._pool, self._queries.healthy)
            if not healthy:
                raise Problem.busy("Events cannot be stored now: the database cannot be written.", 1.0)
        return answer(openapi.Health(status="ok"))

    async def description(self, _: Request) -> Response:
        """``GET /openapi.json``."""
        return answer(openapi.document())
