"""Other environments skip what lacks its package; the one that is made for these tests must not."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator

import pytest
from support.http_sink import HttpSink, http_sink
from support.redis_server import redis_server

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


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis, empty, for the tests of one module."""
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url
