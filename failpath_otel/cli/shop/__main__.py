"""``python -m failpath_otel.cli.shop``: the shop as a process of its own. The first line says where it listens."""

from __future__ import annotations

import socket

import uvicorn

from failpath_otel import FailpathClient
from failpath_otel.cli.parent_watch import watch_parent
from failpath_otel.cli.shop.service import create_app
from failpath_otel.cli.shop.telemetry import export_traces, instrument


def main() -> None:
    """Serves until the process that started it ends it, or is gone."""
    watch_parent()
    provider = export_traces("shop")
    failpath = FailpathClient(capture_stack=True)

    def close() -> None:
        failpath.shutdown()
        provider.shutdown()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        app = create_app(failpath, address, close)
        instrument(app)
        print(f"the shop is listening on {address}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)).run(sockets=[listening])


if __name__ == "__main__":
    main()
