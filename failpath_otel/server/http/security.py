"""Who may call: host names, origins, keys. One guard stands before the routes and puts the security headers on each answer."""

from __future__ import annotations

import hashlib
import hmac
import logging
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from failpath_otel.server.http.headers import header
from failpath_otel.server.http.problem import Problem
from failpath_otel.server.settings import Settings, host_name

COOKIE: Final = "failpath_token"
INGEST_PREFIX: Final = "/v1/"
OPEN_PATHS: Final = frozenset({"/healthz"})
"""Asked by probes that hold no token; the answer tells nothing of what is stored."""

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; "
        "img-src 'self' data:"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_COOKIE_SECONDS: Final = 30 * 24 * 3600

_log = logging.getLogger("failpath_otel.server")


class Guard:
    """ASGI middleware that lets through only who may call, and answers what the application below it fails to."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._hosts = settings.host_names
        self._token = settings.token
        self._ingest_key = settings.ingest_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_secured(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _secure(message)
            await send(message)

        try:
            early = self._checked(scope)
            await (early or self._app)(scope, receive, send_secured)
        except Problem as problem:
            await problem.response(scope)(scope, receive, send_secured)
        except Exception:
            # A fault of ours: the caller gets a 500 in the form that it reads, the log holds the traceback.
            _log.exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise
            fault = Problem(500, "The server met an error of its own; its log says more.")
            await fault.response(scope)(scope, receive, send_secured)

    def _checked(self, scope: Scope) -> Response | None:
        """Nothing where the request may go on, or the answer that takes its place.

        Raises:
            Problem: The request is refused.
        """
        host = self._check_host(scope)
        if scope["method"] not in _SAFE_METHODS:
            _check_origin(scope, host)
        path: str = scope["path"]
        if path.startswith(INGEST_PREFIX):
            if self._ingest_key is not None and not _is_bearer(scope, self._ingest_key):
                raise _unauthorized("Senders must show the ingest key: Authorization: Bearer <key>.")
            return None
        if self._token is None or path in OPEN_PATHS:
            return None
        return self._check_reader(scope, self._token)

    def _check_host(self, scope: Scope) -> str:
        # Without this a page of any site could have its own name resolve to this machine and read what is here.
        values: list[str] = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        name = host_name(values[0]) if len(values) == 1 else None
        if name is None:
            raise Problem(400, f"The request must carry one Host header with a host name, got {values[:2]!r:.200}.")
        if name not in self._hosts:
            raise Problem(
                421,
                f"This server does not answer to the name {name!r:.200}. "
                "Start it with --allow-host and that name, or list it in FAILPATH_ALLOWED_HOSTS.",
            )
        return values[0]

    def _check_reader(self, scope: Scope, token: str) -> Response | None:
        if _is_bearer(scope, token) or _same(_cookie(scope), _cookie_value(token)):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        shown = dict(query).get("token")
        if scope["path"] == "/" and scope["method"] == "GET" and shown is not None and _same(shown, token):
            # The token leaves the address at once, so that it is in no history, log or Referer.
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            response = Response(
                status_code=303, headers={"Location": f"/?{rest}" if rest else "/", "Cache-Control": "no-store"}
            )
            response.set_cookie(
                COOKIE,
                _cookie_value(token),
                max_age=_COOKIE_SECONDS,
                httponly=True,
                samesite="strict",
                secure=_came_by_https(scope),
            )
            return response
        raise _unauthorized("Readers must show the token: Authorization: Bearer <token>, or open /?token=<token> in a browser.")


def _check_origin(scope: Scope, host: str) -> None:
    """SDKs and Collectors send neither header; a browser sends them, and only this server's own pages may change anything."""
    site = header(scope, b"sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        raise Problem(403, f"Requests of other sites are refused (Sec-Fetch-Site: {site[:32]}).")
    origin = header(scope, b"origin")
    if origin is None:
        return
    try:
        own = urlsplit(origin).netloc.lower() == host.strip().lower()
    except ValueError:
        own = False
    if not own:
        raise Problem(403, f"Requests of other origins are refused (Origin: {origin[:200]}).")


def is_bearer(authorization: str, secret: str) -> bool:
    """Whether this value of ``Authorization`` shows the secret."""
    scheme, _, shown = authorization.partition(" ")
    return scheme.lower() == "bearer" and _same(shown.strip(), secret)


def _is_bearer(scope: Scope, secret: str) -> bool:
    return is_bearer(header(scope, b"authorization") or "", secret)


def _same(shown: str, secret: str) -> bool:
    # Takes the same time wherever the two differ.
    return hmac.compare_digest(shown.encode("utf-8", "replace"), secret.encode())


def _came_by_https(scope: Scope) -> bool:
    """Whether the reader did, as the proxy says in which TLS ends: the server itself speaks plain HTTP.

    Whoever sends the header without a proxy only has his own cookie kept from plain HTTP.
    """
    nearest_to_reader = (header(scope, b"x-forwarded-proto") or "").partition(",")[0]
    return nearest_to_reader.strip().lower() == "https"


def _cookie(scope: Scope) -> str:
    for part in (header(scope, b"cookie") or "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def _cookie_value(token: str) -> str:
    """Not the token itself: cookies go to every port of a host."""
    return hmac.new(token.encode(), b"failpath-otel reader", hashlib.sha256).hexdigest()


def _unauthorized(detail: str) -> Problem:
    return Problem(401, detail, headers={"WWW-Authenticate": "Bearer"})


def _secure(message: Message) -> None:
    headers = MutableHeaders(raw=message["headers"])
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    message["headers"] = headers.raw
