"""The dashboard's files as the server gives them: a policy that fits them, a bound on their size, fresh after an update."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from support.served import Served

import failpath_otel.server
from failpath_otel.server.routes.page import ADDRESSES

STATIC = Path(failpath_otel.server.__file__).parent / "static"
BUDGET_BYTES = 120_000


@pytest.mark.parametrize("path", ADDRESSES)
def test_each_address_gives_the_page_under_a_policy_that_forbids_inline_code(server: Served, path: str) -> None:
    answer = server.get(path, flow="any", run_id="any")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! src)", answer.body.decode())


def test_what_the_page_names_is_there_and_asked_for_anew_each_time(server: Served) -> None:
    page = server.get("/").body.decode()
    named = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert len(named) == 3
    for path in named:
        answer = server.get(path)
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-cache"
        assert server.get(path, headers={"If-None-Match": answer.headers["ETag"]}).status == 304


def test_the_page_loads_nothing_from_elsewhere() -> None:
    for file in STATIC.iterdir():
        if file.suffix in (".html", ".css"):
            assert not re.search(r"(?:src|href|url\()\s*=?\s*[\"']?(?:https?:)?//", file.read_text())


def test_all_files_together_keep_within_the_budget() -> None:
    sizes = {file.name: len(gzip.compress(file.read_bytes())) for file in STATIC.iterdir() if file.name != "licenses.txt"}
    assert sum(sizes.values()) <= BUDGET_BYTES, sizes
