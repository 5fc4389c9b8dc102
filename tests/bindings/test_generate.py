"""``failpath-otel generate``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from failpath_otel.cli.group import cli


def flows_with(*keys: str) -> str:
    return json.dumps({"flows": [{"slug": "checkout", "nodes": [{"sdkStepKey": key} for key in keys]}]})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".failpath").mkdir()
    (tmp_path / ".failpath" / "flows.json").write_text(flows_with("charge"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def generate(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["generate", *arguments])


def test_it_writes_beside_the_folder_of_flows_and_says_what(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "src").mkdir()
    monkeypatch.chdir(project / "src")
    done = generate()
    assert done.exit_code == 0
    assert done.output.endswith("failpath_flows.py written: 1 flows, 1 steps\n")
    text = (project / "failpath_flows.py").read_text()
    assert text.startswith("# Made by `failpath-otel generate` from .failpath/flows.json. Do not edit")
    assert 'charge: Final = "charge"' in text


def test_a_module_that_is_up_to_date_is_not_touched(project: Path) -> None:
    generate("-o", "flows.py")
    os.utime("flows.py", ns=(1, 1))
    done = generate("-o", "flows.py")
    assert (done.exit_code, done.output) == (0, "flows.py is up to date\n")
    assert (project / "flows.py").stat().st_mtime_ns == 1


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_check_passes_where_nothing_would_change(project: Path, end: bytes) -> None:
    generate("-o", "flows.py")
    path = project / "flows.py"
    path.write_bytes(path.read_bytes().replace(b"\n", end))
    assert generate("-o", "flows.py", "--check").exit_code == 0


def test_check_fails_where_flows_have_changed_and_says_what_to_run(project: Path) -> None:
    generate("-o", "shop flows.py")
    before = (project / "shop flows.py").read_text()
    (project / ".failpath" / "flows.json").write_text(flows_with("charge", "ship"))
    done = generate("-o", "shop flows.py", "--check")
    assert done.exit_code == 1
    assert "shop flows.py is out of date; run: failpath-otel generate --output 'shop flows.py'\n" in done.output
    assert '+    "ship",' in done.output
    assert (project / "shop flows.py").read_text() == before


def test_check_fails_where_the_module_is_missing_and_writes_none(project: Path) -> None:
    done = generate("--check")
    assert done.exit_code == 1
    assert "failpath_flows.py is missing; run: failpath-otel generate\n" in done.output
    assert not (project / "failpath_flows.py").exists()


def test_a_file_that_others_wrote_is_left_as_it_is(project: Path) -> None:
    (project / "flows.py").write_text("mine = 1\n")
    done = generate("-o", "flows.py")
    assert done.exit_code == 2
    assert "flows.py was not made by this command and is left as it is" in done.output
    assert (project / "flows.py").read_text() == "mine = 1\n"


def test_standard_output_takes_the_module_in_utf_8_whatever_the_terminal_does(project: Path) -> None:
    (project / ".failpath" / "flows.json").write_text(flows_with("支付"), encoding="utf-8")
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "failpath_otel.cli", "generate", "-o", "-"]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, timeout=60, check=True)
    assert '支付: Final = "支付"' in done.stdout.decode()
    assert list(project.glob("*.py")) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--flows", "gone.json"], "gone.json cannot be read"),
        (["-o", "gone/flows.py"], "cannot be written: No such file"),
        (["-o", "."], "cannot be read: Is a directory"),
        (["-o", "-", "--check"], "--check needs a file"),
    ],
)
def test_what_cannot_be_done_is_a_message_and_exit_code_2(project: Path, arguments: list[str], said: str) -> None:
    done = generate(*arguments)
    assert done.exit_code == 2
    assert said in done.output
    assert sorted(path.name for path in project.iterdir()) == [".failpath"]


def test_without_flows_it_says_how_to_name_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = generate()
    assert done.exit_code == 2
    assert "--flows PATH" in done.output


def test_the_variable_that_clients_read_names_the_file_here_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("strict", f"strict:{project / '.failpath' / 'flows.json'}"):
        monkeypatch.setenv("FAILPATH_FLOWS", value)
        assert generate("-o", "-").exit_code == 0


def test_without_click_it_names_the_extra_that_brings_it(project: Path) -> None:
    code = "import sys; sys.modules['click'] = None; sys.argv[1:] = ['generate']; from failpath_otel.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "pip install 'failpath-otel[cli]'" in done.stderr


def test_it_needs_no_server(project: Path) -> None:
    blocked: Any = ("starlette", "uvicorn", "sqlalchemy", "rich", "jinja2")
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); from failpath_otel.cli import main; main()"
    command = [sys.executable, "-c", code, "generate", "-o", "-"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
