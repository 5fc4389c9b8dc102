"""examples/collector_routing: one command, and steps are seen live that came through a real Collector."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.collector import ROOT
from support.served import environment, until

EXAMPLE = ROOT / "examples" / "collector_routing"
RUN = [sys.executable, str(EXAMPLE / "run.py")]


def left_running(mark: str) -> list[str]:
    """The commands of processes that have this text in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and process.name != str(os.getpid()):
            try:
                if mark.encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return found


@pytest.mark.usefixtures("collector_binary")
def test_the_first_runs_are_seen_step_by_step_and_nothing_is_left_running(tmp_path: Path) -> None:
    env = environment({"EXAMPLE_MARK": str(tmp_path)})
    done = subprocess.run(RUN, env=env, capture_output=True, text=True, timeout=110, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"order-1 +charge-card +running\b", done.stdout)
    assert re.search(r"order-2 +charge-card +error +insufficient funds", done.stdout)
    assert re.search(r"order-2 +create-order +missing", done.stdout)
    assert done.stdout.index("order-1    charge-card    running") < done.stdout.index("order-1    charge-card    success")
    found = re.search(r"All 3 runs are known as they were[.] The other backend has (\d+) spans[.]", done.stdout)
    assert found is not None
    # Each order gives a span for its request, one for the payment and one for each step; the last may be under way.
    assert int(found[1]) >= 8
    assert left_running(f"EXAMPLE_MARK={tmp_path}") == []


@pytest.mark.usefixtures("collector_binary")
def test_it_stays_until_it_is_interrupted_and_then_ends_what_it_started(tmp_path: Path) -> None:
    env = environment({"EXAMPLE_MARK": str(tmp_path), "PYTHONUNBUFFERED": "1"})
    said = tmp_path / "said"
    with said.open("wb") as output:
        process = subprocess.Popen([*RUN, "--stay"], env=env, stdout=output, stderr=output, cwd=tmp_path)
    try:
        until(lambda: "order-4" in said.read_text(), 100)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, said.read_text()
    finally:
        process.kill()
        process.wait()
    assert left_running(f"EXAMPLE_MARK={tmp_path}") == []


def test_without_a_collector_it_says_how_to_get_one(tmp_path: Path) -> None:
    env = environment({"XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
    env.pop("OTELCOL", None)
    done = subprocess.run(RUN, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "make collector" in done.stderr
    assert "OTELCOL=" in done.stderr
