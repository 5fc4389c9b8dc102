"""mypy and pyright, both strict, make of the public interface what `tests/typed/` says.

`make check` runs both over these files as they stand. Here the lines that must be errors lose their ignores first, so that a
line which a checker no longer objects to is found: pyright passes over an ignore that nothing needs.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

TYPED = Path(__file__).parent.parent / "typed"
IGNORES = {"mypy": "# type: ignore", "pyright": "# pyright: ignore"}


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """The typed files without their ignores."""
    for path in TYPED.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(re.sub(r"  # (type|pyright): ignore\[.*", "", text), encoding="utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("tool", IGNORES)
def test_checkers_object_to_exactly_the_lines_that_must_be_errors(bare: Path, tool: str) -> None:
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed; `make check` has it")
    expected = {
        (path.name, number)
        for path in TYPED.glob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if IGNORES[tool] in line
    }
    assert expected, "without a line that must be an error nothing is held"
    assert (_mypy(bare) if tool == "mypy" else _pyright(bare)) == expected


def _mypy(folder: Path) -> set[tuple[str, int]]:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file=", "--cache-dir", ".cache", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    errors = [line.split(":") for line in done.stdout.splitlines() if ": error:" in line]
    return {(Path(name).name, int(number)) for name, number, *_ in errors}


def _pyright(folder: Path) -> set[tuple[str, int]]:
    settings = {"include": ["."], "typeCheckingMode": "strict", "pythonVersion": "3.10"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {(Path(item["file"]).name, item["range"]["start"]["line"] + 1) for item in found if item["severity"] == "error"}
