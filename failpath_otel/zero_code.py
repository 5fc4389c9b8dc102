"""Zero code: ``opentelemetry-instrument`` calls `start` in each process, before it instruments libraries.

The provider is set by then where ``opentelemetry-distro`` is installed; one set later is met when it comes.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Mapping
from typing import Any, Final

from failpath_otel.client import FailpathClient
from failpath_otel.config import Options
from failpath_otel.delivery import Sink, process
from failpath_otel.delivery.fallback import FallbackSink
from failpath_otel.delivery.own_thread import run_in_own_thread
from failpath_otel.errors import ConfigError
from failpath_otel.interruption import is_interruption
from failpath_otel.notices import logger

ASKED_BY: Final = ("FAILPATH_PROJECT_KEY", "FAILPATH_DEV_ENDPOINT", "FAILPATH_EXPORTER")
"""Each of these says where events go; without any of them nothing was asked for, and nothing is said."""


class ZeroCodeClient(FailpathClient):
    """A client of the environment alone. One that the service makes in code takes its place; see `FallbackSink`."""

    _made_by_service = False

    def _open_sink(self, options: Options) -> Sink | None:
        sink = super()._open_sink(options)
        return None if sink is None else FallbackSink(sink)


_client: FailpathClient | None = None


def start() -> None:
    """Makes the client that the environment asks for, once for a process. Never raises: what is wrong is logged."""
    global _client
    if _client is not None or not is_asked_for(os.environ):
        return
    try:
        _client = ZeroCodeClient()
        _await_uvicorn()
    except ConfigError as error:
        logger.error("failpath-otel is off, and the service goes on without it: %s", error)
    except Exception as error:
        if is_interruption(error):
            raise
        logger.exception("failpath-otel is off, and the service goes on without it")


def client() -> FailpathClient | None:
    """The client that `start` made, to ask for its ``stats()``; ``None`` where it made none."""
    return _client


def is_asked_for(environ: Mapping[str, str]) -> bool:
    """Whether the environment says where events go."""
    return any(environ.get(name, "").strip() for name in ASKED_BY)


def _await_uvicorn() -> None:
    """Has uvicorn's server send what was recorded when it shuts down, once the service imports it."""
    # It comes with the package whose command starts this; whoever calls `start` otherwise goes without.
    with contextlib.suppress(ImportError):
        from wrapt import register_post_import_hook

        register_post_import_hook(_have_uvicorn_flush, "uvicorn.server")


def _have_uvicorn_flush(module: Any) -> None:
    # uvicorn ends by the signal that ended it, past Python's exit handlers, and no middleware of ours is in the application.
    shutdown = getattr(getattr(module, "Server", None), "shutdown", None)
    if not inspect.iscoroutinefunction(shutdown):
        return  # a uvicorn that we do not know

    @functools.wraps(shutdown)
    async def shut_down_and_flush(*args: Any, **kwargs: Any) -> Any:
        try:
            return await shutdown(*args, **kwargs)
        finally:
            try:
                await run_in_own_thread(process.flush_all)
            except Exception as error:
                if is_interruption(error):
                    raise
                logger.warning("what was recorded last may not be sent", exc_info=True)

    module.Server.shutdown = shut_down_and_flush
