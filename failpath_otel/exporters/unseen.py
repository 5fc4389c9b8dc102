"""Our own requests leave past the tools that would trace them.

OpenTelemetry's instrumentations are kept away by a key in the context (``delivery/worker.py``). ddtrace and Sentry know nothing
of it: the one wraps functions of `requests` and urllib3, the other those of `http.client`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import requests

from failpath_otel.interruption import is_interruption
from failpath_otel.notices import warn_once

_idle_sentry: list[Any] = []


class UntracedSession(requests.Session):
    """A session whose requests are sent by `requests` itself, whatever was wrapped around that."""

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """As ever; looked up at each call, since tools patch at any time."""
        response: requests.Response = inspect.unwrap(requests.Session.send)(self, request, **kwargs)
        return response


@contextmanager
def unseen() -> Generator[None, None, None]:
    """Within the block Sentry's integrations see a client of Sentry that has none of them switched on.

    Else it would put a breadcrumb, a span and its tracing headers on our requests. Code of the service must not run in it.
    """
    sentry: Any = sys.modules.get("sentry_sdk")
    scope = None
    if sentry is not None:
        try:
            scope = sentry.new_scope()
            scope.__enter__().set_client(_sentry_client(sentry))
        except Exception as error:  # another version of it; our requests are then seen, which is better than not made
            if is_interruption(error):
                raise
            scope = None
            warn_once("sentry", "Sentry may show the requests that deliver events", exc_info=True)
    try:
        yield
    finally:
        if scope is not None:
            scope.__exit__(None, None, None)


def _sentry_client(sentry: Any) -> Any:
    if not _idle_sentry:
        _idle_sentry.append(sentry.Client(dsn="", default_integrations=False, auto_enabling_integrations=False))
    return _idle_sentry[0]
