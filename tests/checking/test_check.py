"""``failpath-otel check``: files, output, exit codes."""

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

FLOWS = """\
{
  "flows": [
    {
      "slug": "checkout",
      "nodes": [
        {"sdkStepKey": "charge-card"},
        {"sdkStepKey": "ship"}
      ]
    }
  ]
}
"""
GOOD = """\
from failpath_otel import FailpathClient

failpath = FailpathClient()


def checkout(request_id):
    run = failpath.run("checkout", run_id=request_id)
    run.step("charge-card", print)
    run.step("ship", print)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".failpath").mkdir()
    (tmp_path / ".failpath" / "flows.json").write_text(FLOWS)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "app.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["check", *arguments])


def break_app(project: Path, before: str = '"charge-card"', after: str = '"chrage-card"') -> None:
    (project / "shop" / "app.py").write_text(GOOD.replace(before, after))


def findings(*arguments: str) -> list[dict[str, Any]]:
    return json.loads(check("--format", "json", *arguments).output)["findings"]


def test_a_clean_tree_is_0_and_one_line(project: Path) -> None:
    done = check()
    assert (done.exit_code, done.output) == (0, "1 file checked: 0 errors, 0 warnings, 0 notes; 2 of 2 steps reported\n")


def test_an_unknown_step_is_1_and_says_where_and_what_may_be_meant(project: Path) -> None:
    break_app(project)
    done = check("shop")
    assert done.exit_code == 1
    missing = "step 'charge-card' of flow 'checkout' is not reported by the code that was checked"
    unknown = "step 'chrage-card' of flow 'checkout' is not declared; did you mean 'charge-card'?"
    assert done.output.splitlines() == [
        f"shop/app.py:8:14: error: {unknown} [unknown-step]",
        f".failpath/flows.json:6:10: warning: {missing} [not-reported]",
        "1 file checked: 1 error, 1 warning, 0 notes; 1 of 2 steps reported",
    ]


def test_json_has_all_of_it(project: Path) -> None:
    break_app(project)
    done = check("--format", "json")
    content = json.loads(done.output)
    assert done.exit_code == 1
    assert (content["version"], content["files"], content["errors"], content["warnings"], content["notes"]) == (1, 1, 1, 1, 0)
    assert content["findings"][0] == {
        "code": "unknown-step",
        "severity": "error",
        "path": "shop/app.py",
        "line": 8,
        "column": 14,
        "endLine": 8,
        "endColumn": 27,
        "message": "step 'chrage-card' of flow 'checkout' is not declared; did you mean 'charge-card'?",
        "flow": "checkout",
        "key": "chrage-card",
        "suggestion": "charge-card",
    }
    assert content["coverage"] == [
        {"flows": ".failpath/flows.json", "flow": "checkout", "reported": ["ship"], "notReported": ["charge-card"]}
    ]


def test_github_shows_findings_at_their_lines_with_what_has_a_meaning_there_escaped(project: Path) -> None:
    break_app(project, '"charge-card"', '"100%: a,\\n"')
    done = check("--format", "github", "--coverage", "off")
    assert done.output == (
        "::error file=shop/app.py,line=8,endLine=8,col=14,endColumn=26,title=failpath unknown-step"
        "::step '100%25: a,\\n' of flow 'checkout' is not declared\n"
    )


@pytest.mark.parametrize(("choice", "exit_code", "count"), [("off", 0, 0), ("warning", 0, 1), ("error", 1, 1)])
def test_coverage_may_be_left_out_or_be_an_error(project: Path, choice: str, exit_code: int, count: int) -> None:
    break_app(project, '    run.step("ship", print)\n', "")
    done = check("--coverage", choice)
    assert (done.exit_code, done.output.count("step 'ship' of flow 'checkout' is not reported")) == (exit_code, count)


@pytest.mark.parametrize(("choice", "exit_code", "count"), [("off", 0, 0), ("note", 0, 1), ("error", 1, 1)])
def test_keys_known_only_at_run_time_may_be_left_out_or_be_errors(
    project: Path, choice: str, exit_code: int, count: int
) -> None:
    break_app(project, '"ship"', "key_of(request_id)")
    done = check("--unresolved", choice, "--coverage", "off")
    assert (done.exit_code, done.output.count("the step key key_of(request_id) is known only when")) == (exit_code, count)


def test_a_key_that_may_be_it_is_told_with_what_is_not_reported(project: Path) -> None:
    break_app(project, '"ship"', "key_of(request_id)")
    assert "unless under a key that is known only when the code runs" in check().output


def test_a_flow_of_which_nothing_is_reported_is_one_finding(project: Path) -> None:
    (project / "shop" / "app.py").write_text("")
    assert [finding["message"] for finding in findings()] == [
        "no step of flow 'checkout' is reported by the code that was checked"
    ]


@pytest.mark.parametrize(
    "content",
    [b"def f(:\n", b"x = '\xff'\n", b"# coding: no-such\n", b"x = 1\0\n", b"(" * 5000, b"x = " + b"-" * 100_000 + b"1"],
    ids=["syntax", "utf-8", "coding", "null byte", "parentheses", "signs"],
)
def test_a_file_that_cannot_be_parsed_is_a_finding_and_the_others_are_checked(project: Path, content: bytes) -> None:
    (project / "shop" / "broken.py").write_bytes(content)
    break_app(project)
    done = check("--coverage", "off")
    assert done.exit_code == 1
    assert "shop/app.py:8:14: error: step 'chrage-card'" in done.output
    assert "shop/broken.py:" in done.output
    assert "[syntax-error]" in done.output


def test_a_file_in_another_encoding_is_read_in_it(project: Path) -> None:
    (project / "shop" / "app.py").write_bytes(b"# coding: latin-1\r\n" + GOOD.replace("ship", "sh\xfcp").encode("latin-1"))
    assert [(finding["line"], finding["key"]) for finding in findings("--coverage", "off")] == [(10, "sh\xfcp")]


def test_folders_of_others_are_passed_over(project: Path) -> None:
    places = [".venv/lib", "node_modules/x", ".hidden", "venv/lib", "own-env/lib", "x/site-packages", "__pycache__", "kept"]
    for place in places:
        folder = project / place
        folder.mkdir(parents=True)
        (folder / "bad.py").write_text(GOOD.replace("ship", "shp"))
    (project / "own-env" / "pyvenv.cfg").write_text("")
    assert [finding["path"] for finding in findings("--coverage", "off")] == ["kept/bad.py"]


@pytest.mark.parametrize("pattern", ["app.py", "*.py", "shop", "shop/", "./shop", "shop/app.py", "shop/*", "/shop"])
def test_excluded_files_are_not_looked_at(project: Path, pattern: str) -> None:
    break_app(project)
    (project / "other").mkdir()
    (project / "other" / "more").write_text("")
    done = check("--exclude", pattern, ".")
    assert done.exit_code == 2
    assert "there are no Python files" in done.output


@pytest.mark.parametrize("pattern", ["hop", "app", "/app.py", "other/*"])
def test_what_no_pattern_matches_is_looked_at(project: Path, pattern: str) -> None:
    assert check("--exclude", pattern).exit_code == 0


def test_a_file_that_is_named_is_looked_at_wherever_it_is_and_whatever_its_name(project: Path) -> None:
    (project / ".hidden").mkdir()
    (project / ".hidden" / "script").write_text(GOOD)
    assert check(".hidden/script").output.startswith("1 file checked: 0 errors")


def test_each_file_goes_by_the_flows_that_are_nearest_above_it(project: Path) -> None:
    other = project / "services" / "billing"
    (other / ".failpath").mkdir(parents=True)
    (other / ".failpath" / "flows.json").write_text(FLOWS.replace("checkout", "invoice"))
    (other / "app.py").write_text(GOOD.replace('"checkout"', '"invoice"'))
    done = check()
    assert (done.exit_code, done.output) == (0, "2 files checked: 0 errors, 0 warnings, 0 notes; 4 of 4 steps reported\n")
    assert check("--flows", ".failpath/flows.json").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone"], "gone does not exist"),
        (["--flows", "gone.json"], "gone.json cannot be read"),
        (["--format", "xml"], "xml"),
        ([".failpath"], "there are no Python files in .failpath"),
    ],
)
def test_what_cannot_be_done_is_a_message_and_exit_code_2(project: Path, arguments: list[str], said: str) -> None:
    done = check(*arguments)
    assert done.exit_code == 2
    assert said in done.output


def test_without_flows_it_says_how_to_name_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text(GOOD)
    done = check()
    assert done.exit_code == 2
    assert "--flows PATH" in done.output


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_2(project: Path) -> None:
    (project / "shop" / "app.py").chmod(0)
    done = check()
    assert done.exit_code == 2
    assert "[unreadable]" in done.output


def test_a_link_that_leads_nowhere_is_a_finding_and_2(project: Path) -> None:
    (project / "shop" / "gone.py").symlink_to(project / "nowhere.py")
    done = check()
    assert done.exit_code == 2
    assert "shop/gone.py:1:1: error: not checked: No such file or directory [unreadable]" in done.output


def test_a_pipe_is_not_waited_for(project: Path) -> None:
    os.mkfifo(project / "shop" / "pipe.py")
    assert check().output.startswith("1 file checked")


def test_nothing_that_is_checked_is_run(project: Path) -> None:
    (project / "shop" / "app.py").write_text(GOOD + "\nraise SystemExit(7)\n")
    assert check().exit_code == 0


def test_it_needs_no_server(project: Path) -> None:
    blocked = ("starlette", "uvicorn", "sqlalchemy", "rich", "jinja2")
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); from failpath_otel.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "check"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_this_repositorys_own_examples_are_clean(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    done = check("examples", "failpath_otel/cli/shop")
    assert done.exit_code == 0, done.output
