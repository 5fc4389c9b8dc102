"""Examples that are one command: each ends well and prints what its README shows."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.markdown import blocks

SECONDS = 110

NEEDS = {
    "fastapi_existing_traces": [
        "opentelemetry.distro",
        "opentelemetry.instrumentation.httpx",
        "opentelemetry.instrumentation.sqlalchemy",
    ],
    "mixed_traces": ["uvicorn"],
    "celery_worker": ["celery", "redis", "fastapi", "httpx", "opentelemetry.distro", "opentelemetry.instrumentation.celery"],
    "django_shop": ["django", "gunicorn", "opentelemetry.distro", "opentelemetry.instrumentation.django"],
    "serverless_handler": ["uvicorn"],
    "two_services": ["fastapi", "httpx", "opentelemetry.distro", "opentelemetry.instrumentation.fastapi"],
}
"""Example → the modules without which it is skipped; the environment of `make test-neighbours` has them all."""
PROGRAMS = {"celery_worker": ("FAILPATH_REDIS", "redis-server")}
"""Example → the program that it needs beside these, after the variable that may name it."""


def without_what_varies(text: str) -> str:
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text)
    text = re.sub(r"\b[0-9a-f]{32}\b", "TRACE", text)
    text = re.sub(r"\b\d+(\.\d+)? ms\b", "N ms", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NEEDS))
def test_the_example_ends_well_and_prints_what_its_readme_shows(name: str, repository: Path) -> None:
    for module in NEEDS[name]:
        if not _is_here(module):
            pytest.skip(f"{module} is not installed; `make test-neighbours` has it")
    variable, program = PROGRAMS.get(name, ("", "env"))
    if not os.environ.get(variable) and shutil.which(program) is None:
        # Where CI is set it must not go unseen.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{program} is not installed")
    folder = repository / "examples" / name
    (shown,) = [block.body for block in blocks(folder / "README.md") if block.language == "text" and "output" in block.words]
    env = {key: value for key, value in os.environ.items() if not key.startswith(("FAILPATH_", "OTEL_"))}
    done = subprocess.run(
        [sys.executable, folder / "run.py"], env=env, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert without_what_varies(done.stdout) == without_what_varies(shown)


def _is_here(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
