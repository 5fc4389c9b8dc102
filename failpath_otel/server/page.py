"""The plain page: the runs and one run, rendered by the server from what `queries` answers.

It reads by three calls and holds nothing, so another front end can take its place without a change below it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from failpath_otel.server import display
from failpath_otel.server.queries import BadQuery
from failpath_otel.server.rows import FlowList, RunDetail, RunPage

_HERE: Final = Path(__file__).parent
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_STATUSES: Final = ("error", "running", "incomplete", "success")
_HEADERS: Final = {"Cache-Control": "no-store"}


class Reads(Protocol):
    """What the page asks for; `failpath_otel.server.queries.Queries` gives it."""

    def flows(self) -> FlowList:
        """All flows."""
        ...

    def runs(
        self,
        flow: str | None = None,
        status: str | None = None,
        q: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """Runs, newest first."""
        ...

    def run(self, flow: str, run_id: str) -> RunDetail | None:
        """One run with its steps."""
        ...


def routes(queries: Reads) -> list[BaseRoute]:
    """``/`` and ``/run`` with what they are styled by, to be mounted beside the API."""
    page = _Page(queries)
    return [
        # Plain functions: Starlette runs them in a thread, for reads block.
        Route("/", page.runs, methods=["GET"], name="runs"),
        Route("/run", page.run, methods=["GET"], name="run"),
        _static(),
    ]


def bridge_routes(url: str) -> list[BaseRoute]:
    """The same for a server that keeps nothing: what it is, and where its events go on to."""
    templates = _environment()

    async def nothing(request: Request) -> Response:
        found = request.url.path == "/"
        body = templates.get_template("bridge.html").render(url=url)
        return HTMLResponse(body, 200 if found else 404, _HEADERS)

    return [Route("/", nothing, methods=["GET"]), Route("/run", nothing, methods=["GET"]), _static()]


class _Page:
    def __init__(self, queries: Reads) -> None:
        self._queries = queries
        self._templates = _environment()

    def runs(self, request: Request) -> Response:
        asked = {name: request.query_params.get(name) or None for name in ("flow", "status", "q", "cursor")}
        try:
            found = self._queries.runs(flow=asked["flow"], status=asked["status"], q=asked["q"], cursor=asked["cursor"])
        except BadQuery as error:
            return self._render("problem.html", 400, title="This address cannot be read", detail=str(error))
        listed = {name: text for name, text in asked.items() if name != "cursor"}
        return self._render(
            "runs.html",
            flows=self._queries.flows().flows,
            page=found,
            asked=asked,
            filtered=any(listed.values()),
            newest=display.link("/", **listed),
            older=display.link("/", **listed, cursor=found.next_cursor) if found.next_cursor else None,
            statuses=_STATUSES,
            endpoint=str(request.base_url).rstrip("/"),
            local=request.url.hostname in _LOOPBACK,
        )

    def run(self, request: Request) -> Response:
        flow, run_id = request.query_params.get("flow"), request.query_params.get("run_id")
        if not flow or not run_id:
            detail = "A run is named by two parameters: /run?flow=<flow slug>&run_id=<run id>."
            return self._render("problem.html", 400, title="This address names no run", detail=detail)
        detail_row = self._queries.run(flow, run_id)
        if detail_row is None:
            detail = f"No event of run {run_id!r} of flow {flow!r} has arrived. If it has just begun, load the page again."
            return self._render("problem.html", 404, title="This run is not known", detail=detail)
        return self._render("run.html", run=detail_row)

    def _render(self, template: str, status_code: int = 200, **values: object) -> Response:
        return HTMLResponse(self._templates.get_template(template).render(**values), status_code, _HEADERS)


def _static() -> Mount:
    return Mount("/static", StaticFiles(directory=_HERE / "static"), name="static")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., object]] = {
        "identifier": display.identifier,
        "prose": display.prose,
        "plain": display.plain,
        "moment": display.moment,
        "duration": display.duration,
        "value": display.value,
    }
    environment.filters.update(filters)
    names: dict[str, Any] = {"link": display.link, "missing_reasons": display.MISSING_REASONS}
    environment.globals.update(names)
    return environment
