"""A real Redis for tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.ports import free_port
from support.served import until

SECONDS = 60


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Its address, without the number of a database. Without a server the test is skipped, or fails where CI is set."""
    server = os.environ.get("FAILPATH_REDIS") or shutil.which("redis-server")
    if server is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs redis-server: tools/redis.sh says how to get one")
    port = free_port()
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        until(lambda: listens(port), SECONDS)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(SECONDS)
