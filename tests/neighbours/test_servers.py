"""Under every server model each step comes once, and what was told last is there when the server has ended."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.http_sink import HttpSink
from support.processes import BIN, SHOP, TOLD, arrived, fill, once, serving, settings

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]

GUNICORN = [str(BIN / "gunicorn"), "-w", "2", "-b", "127.0.0.1:0", "--graceful-timeout", "10", "--no-control-socket"]
UVICORN = [str(BIN / "uvicorn"), "--port", "0"]
MODELS = {
    "gunicorn sync": [*GUNICORN, "shop:wsgi"],
    "gunicorn sync --preload": [*GUNICORN, "shop:wsgi", "--preload"],
    "gunicorn gthread --preload": [*GUNICORN, "shop:wsgi", "-k", "gthread", "--threads", "4", "--preload"],
    "gunicorn gevent": [*GUNICORN, "shop:wsgi", "-k", "gevent"],
    "gunicorn gevent --preload": [*GUNICORN, "shop:wsgi", "-k", "gevent", "--preload"],
    "gunicorn uvicorn": [*GUNICORN, "shop:asgi", "-k", "uvicorn_worker.UvicornWorker"],
    "gunicorn uvicorn --preload": [*GUNICORN, "shop:asgi", "-k", "uvicorn_worker.UvicornWorker", "--preload"],
    "uvicorn": [*UVICORN, "shop:asgi"],
    "uvicorn, middleware": [*UVICORN, "shop:by_middleware"],
    "uvicorn --workers": [*UVICORN, "shop:asgi", "--workers", "2"],
}
MODULES = {"gevent": "gevent", "uvicorn_worker.UvicornWorker": "uvicorn_worker"}


@pytest.mark.parametrize("model", MODELS)
def test_each_step_comes_once_and_the_last_ones_survive_the_end_of_the_workers(
    model: str, sink: HttpSink, tmp_path: Path, needs: Callable[..., None]
) -> None:
    command = MODELS[model]
    needs(Path(command[0]).name, "uvicorn", *(MODULES[word] for word in command if word in MODULES))
    processes = 1 if model.startswith("uvicorn") and "--workers" not in model else 2
    (tmp_path / "shop.py").write_text(SHOP)
    with serving(tmp_path, settings(sink, {"FLUSHES": "by middleware" if "middleware" in model else "itself"}), *command) as (
        url,
        log,
    ):
        served = fill(url, processes)
    told = arrived(sink)
    assert {run: told.get(run) for run in served} == dict.fromkeys(served, once(*TOLD))
    boots = {run: told[run] for run in told if run.isdecimal()}
    assert boots == dict.fromkeys(boots, once(("import", "running"), ("import", "success")))
    assert len(boots) == (1 if "--preload" in model else processes)
    said = log.read_text()
    if "--preload" in model:  # every fork is warned of where the first process reported itself and so has a thread
        said = said.replace("DeprecationWarning: This process (pid=", "")
    if "gevent" in model:
        said = said.replace("MonkeyPatchWarning", "")  # with --preload gunicorn itself patches after the application's imports
    assert not [word for word in ("Traceback", "Warning", "failpath_otel") if word in said], said
