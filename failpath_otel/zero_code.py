"""Zero code: ``opentelemetry-instrument`` calls `start` in each process, before it instruments libraries.

The provider is set by then where ``opentelemetry-distro`` is installed; one set later is met when it comes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from failpath_otel.client import FailpathClient
from failpath_otel.config import Options
from failpath_otel.delivery import Sink
from failpath_otel.delivery.stand_in import StandIn
from failpath_otel.errors import ConfigError
from failpath_otel.notices import logger

ASKED_BY: Final = ("FAILPATH_PROJECT_KEY", "FAILPATH_DEV_ENDPOINT", "FAILPATH_EXPORTER")
"""Each of these says where events go; without any of them nothing was asked for, and nothing is said."""


class ZeroCodeClient(FailpathClient):
    """A client of the environment alone. One that the service makes in code takes its place; see `StandIn`."""

    _made_by_service = False

    def _open_sink(self, options: Options) -> Sink | None:
        sink = super()._open_sink(options)
        return None if sink is None else StandIn(sink)


_client: FailpathClient | None = None


def start() -> None:
    """Makes the client that the environment asks for, once for a process. Never raises: what is wrong is logged."""
    global _client
    if _client is not None or not is_asked_for(os.environ):
        return
    try:
        _client = ZeroCodeClient()
    except ConfigError as error:
        logger.error("failpath-otel is off, and the service goes on without it: %s", error)
    except Exception:
        logger.exception("failpath-otel is off, and the service goes on without it")


def client() -> FailpathClient | None:
    """The client that `start` made, to ask for its ``stats()``; ``None`` where it made none."""
    return _client


def is_asked_for(environ: Mapping[str, str]) -> bool:
    """Whether the environment says where events go."""
    return any(environ.get(name, "").strip() for name in ASKED_BY)
