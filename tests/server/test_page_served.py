"""The page as the real server serves it: what it tells to paste works, and its policy allows what it needs."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from support.served import Served, environment


def test_three_lines_of_the_empty_state_make_a_run(start_server: Callable[..., Served], tmp_path: Path) -> None:
    """The lines are taken from the page as it stands, and run by a Python of their own."""
    flows = tmp_path / "flows.json"
    flows.write_text('{"flows": []}')
    server = start_server("--flows", str(flows))
    empty = server.get("/").body.decode()
    assert "Nothing has arrived yet" in empty
    found = re.search(r"(?s)<code>(from .*?)</code>", empty)
    assert found is not None
    lines = html.unescape(found[1])
    assert len(lines.splitlines()) == 3
    ran = subprocess.run(
        [sys.executable, "-c", lines], env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "hello\n", "")
    assert [run["flowKey"] for run in server.get("/api/runs").json["runs"]] == ["hello"]
    listed = server.get("/").body.decode()
    assert 'href="/run?flow=hello&amp;run_id=' in listed
    link = html.unescape(re.findall(r'href="(/run\?[^"]*)"', listed)[0])
    assert "say-hello" in server.get(link).body.decode()


def test_page_is_served_under_a_policy_that_forbids_inline_code(server: Served) -> None:
    for path in ("/", "/run?flow=none&run_id=none", "/run"):
        policy = server.get(path).headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy or "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! src)", server.get(path).body.decode())


def test_what_the_page_is_styled_by_is_there(server: Served) -> None:
    kinds = {"page.css": "text/css", "live.js": "javascript", "icon.svg": "image/svg+xml"}
    for name, kind in kinds.items():
        answer = server.get(f"/static/{name}")
        assert answer.status == 200
        assert kind in answer.headers["Content-Type"]


def test_bad_filter_is_a_bad_request_in_words(server: Served) -> None:
    answer = server.get("/", status="nope")
    assert answer.status == 400
    assert "got &#39;nope&#39;" in answer.body.decode()
