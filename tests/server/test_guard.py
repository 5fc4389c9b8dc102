"""The guard by itself: what it does with requests that the HTTP library in front of it would never pass on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from failpath_otel.server.http.security import SECURITY_HEADERS, Guard
from failpath_otel.server.settings import Settings


def answered(*headers: tuple[bytes, bytes], app: Any = None) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer to ``GET /api/runs``."""
    sent: list[dict[str, Any]] = []
    scope = {"type": "http", "method": "GET", "path": "/api/runs", "query_string": b"", "headers": list(headers)}

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    guard = Guard(app or PlainTextResponse("in"), Settings(db="runs.db"))
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


@pytest.mark.parametrize("names", [(), (b"localhost", b"localhost"), (b"localhost", b"evil.example")])
def test_a_request_with_no_host_or_several_is_refused(names: tuple[bytes, ...]) -> None:
    assert answered(*((b"host", name) for name in names))[0] == 400


def test_a_route_may_have_a_policy_of_its_own_and_has_the_other_headers_beside_it() -> None:
    own = {"content-security-policy": "default-src 'none'"}
    status, headers = answered((b"host", b"localhost"), app=PlainTextResponse("in", headers=own))
    assert (status, headers["content-security-policy"]) == (200, "default-src 'none'")
    others = {name.lower() for name in SECURITY_HEADERS} - set(own)
    assert others <= {name.lower() for name in headers}
