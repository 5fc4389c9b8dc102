"""Other environments skip what lacks its package; the one that is made for these tests must not."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from support.http_sink import HttpSink, http_sink
from support.ports import free_port
from support.processes import SECONDS
from support.served import until

HERE = ".venv-neighbours" in sys.prefix


@pytest.fixture(scope="session")
def needs() -> Callable[..., None]:
    """Skips the test where a module is missing; in `.venv-neighbours` under CI it fails."""

    def need(*modules: str) -> None:
        for module in modules:
            if HERE and os.environ.get("CI"):
                importlib.import_module(module)
            else:
                pytest.importorskip(module)

    return need


@pytest.fixture
def sink() -> Iterator[HttpSink]:
    with http_sink() as listening:
        yield listening


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server of our own, which keeps nothing."""
    server = os.environ.get("FAILPATH_REDIS") or shutil.which("redis-server")
    if server is None:
        # Where CI is set it must not go unseen.
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs redis-server: tools/redis.sh says how to get one")
    port = free_port()
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, cwd=tmp_path_factory.mktemp("redis"), stdout=subprocess.DEVNULL)
    try:
        until(lambda: _listens(port), SECONDS)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(SECONDS)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
