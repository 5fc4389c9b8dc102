"""The answer to a request that cannot be served: RFC 9457 problem documents, and ``google.rpc.Status`` for OTLP senders."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from math import ceil
from typing import Any, Final

import msgspec
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from starlette.responses import Response
from starlette.types import Scope

from failpath_otel.server.http.headers import JSON, PROTOBUF, speaks_json, speaks_otlp
from failpath_otel.server.http.request_notes import notes_of

PROBLEM_JSON: Final = "application/problem+json"

_UNKNOWN: Final = 2
# google.rpc.Code for the answers that we give; what is the sender's fault and no more special is INVALID_ARGUMENT.
_RPC_CODES: Final[Mapping[int, int]] = {
    400: 3,
    401: 16,
    403: 7,
    404: 5,
    405: 12,
    408: 4,
    413: 3,
    415: 3,
    421: 3,
    429: 8,
    500: 13,
    503: 14,
}


class ProblemDocument(msgspec.Struct, frozen=True):
    """The body of an error (RFC 9457). ``detail`` names the value and the way out."""

    type: str
    title: str
    status: int
    detail: str


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it so
    """A request that cannot be served; ``detail`` names the value and the way out."""

    retry_after: int | None = None
    """After how many seconds the sender may come again, where that would help."""

    def __init__(self, status: int, detail: str, *, title: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.title = title or HTTPStatus(status).phrase
        self.headers = dict(headers or {})

    @classmethod
    def busy(cls, detail: str, retry_after: float) -> Problem:
        """A 503 that asks the sender to come again after ``retry_after`` seconds, rounded up."""
        seconds = max(1, ceil(retry_after))
        problem = cls(503, detail, headers={"Retry-After": str(seconds)})
        problem.retry_after = seconds
        return problem

    @property
    def rpc_code(self) -> int:
        """The ``google.rpc.Code`` that says the same."""
        return _RPC_CODES.get(self.status, _UNKNOWN)

    def response(self, scope: Scope) -> Response:
        """The answer in the form that this path's callers read."""
        notes_of(scope).refusal = self.detail
        if speaks_otlp(scope["path"]):
            return self._as_status(speaks_json(scope))
        document = ProblemDocument("about:blank", self.title, self.status, self.detail)
        return Response(msgspec.json.encode(document), self.status, self.headers, PROBLEM_JSON)

    def _as_status(self, as_json: bool) -> Response:
        if as_json:
            body: dict[str, Any] = {"code": self.rpc_code, "message": self.detail}
            return Response(msgspec.json.encode(body), self.status, self.headers, JSON)
        return Response(
            Status(code=self.rpc_code, message=self.detail).SerializeToString(), self.status, self.headers, PROTOBUF
        )
