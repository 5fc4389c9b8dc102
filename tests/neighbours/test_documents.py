"""What the documents show beside other packages runs, here where all of them are."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.examples import ROOT, is_script, is_test, needed_by, run_scripts, run_tests
from support.markdown import blocks, documents

# Not among the packages here: its test server has to be downloaded. The block is only shown.
ELSEWHERE = {"temporalio"}

NEEDED = {
    document.relative_to(ROOT).as_posix(): needed
    for document in documents(ROOT)
    if (needed := sorted({package for block in blocks(document) for package in needed_by(block)}))
}


@pytest.mark.parametrize("name", NEEDED)
def test_examples_and_example_tests_of_a_document_run(name: str, tmp_path: Path, needs: Callable[..., None]) -> None:
    needs(*(package for package in NEEDED[name] if package not in ELSEWHERE))
    found = list(blocks(ROOT / name))
    if any(map(is_script, found)):
        printed, shown = run_scripts(ROOT / name, tmp_path)
        assert printed == shown
    if any(map(is_test, found)):
        folder = tmp_path / "tests"
        folder.mkdir()
        said = run_tests(ROOT / name, folder)
        assert re.search(r"^\d+ passed", said, re.MULTILINE), said
