"""The dashboard as files: one page for every address of it; the page itself reads the JSON API.

Its sources lie in ``ui/`` and are built into ``static/`` by ``make ui``; both are committed, so that a wheel needs no Node.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

ADDRESSES: Final = ("/", "/flow", "/runs", "/run", "/intake")
"""Where the page can be opened; ui/src/url.ts names the same."""

_STATIC: Final = Path(__file__).parent.parent / "static"
# Asked for anew each time and answered with 304 where nothing changed: after an update the parts fit each other.
_HEADERS: Final = {"Cache-Control": "no-cache"}


def routes() -> list[BaseRoute]:
    """The page and what it is made of, to be mounted beside the API."""
    return [
        *(Route(path, _index, methods=["GET"]) for path in ADDRESSES),
        Mount("/static", _Static(directory=_STATIC), name="static"),
    ]


async def _index(_: Request) -> Response:
    return FileResponse(_STATIC / "index.html", media_type="text/html", headers=_HEADERS)


class _Static(StaticFiles):
    def file_response(self, *args: object, **kwargs: object) -> Response:
        answer = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        answer.headers.update(_HEADERS)
        return answer
