"""The reference has every public name, and every name in it exists; so has the page for users of the TypeScript SDK."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from support.markdown import table

import failpath_otel
from failpath_otel.config import OPTIONS
from failpath_otel.testing import RecordingClient

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "reference"
TYPESCRIPT = ROOT / "docs" / "guides" / "typescript.md"
NAMES = [name for page in sorted(PAGES.glob("*.md")) for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE)]


def test_every_public_name_is_on_one_page_of_the_reference() -> None:
    shown = [name.removeprefix("failpath_otel.") for name in NAMES if name.count(".") == 1]
    assert sorted(shown) == sorted(set(failpath_otel.__all__) - {"__version__"})


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_reference_exists_and_is_documented(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    if module.endswith(".celery"):
        pytest.importorskip("celery")
    value: Any = getattr(importlib.import_module(module), attribute)
    source = importlib.util.find_spec(module)
    assert source is not None
    assert getattr(value, "__doc__", None) or attribute in ("Status", "DropReason")


def test_every_page_of_the_documentation_is_in_the_navigation_of_the_site() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    left_out = [page for page in pages if not page.startswith("decisions/0") and f" {page}\n" not in navigation]
    assert left_out == []


def test_each_method_named_for_users_of_the_typescript_sdk_exists() -> None:
    places = {
        "FailpathClient": failpath_otel.FailpathClient,
        "Run": failpath_otel.Run,
        "RecordingClient": RecordingClient(flows=False),
    }
    for _, name, _ in table(TYPESCRIPT, "## Methods"):
        owner, _, method = name.strip("`").rpartition(".")
        if owner in places:
            assert hasattr(places[owner], method), name
        else:
            assert getattr(importlib.import_module(owner), method)


def test_each_option_is_named_for_users_of_the_typescript_sdk() -> None:
    named = {name.strip("`") for _, name, *_ in table(TYPESCRIPT, "## Options")} - {""}
    own = re.findall(r"`(\w+)`", re.findall(r"^Only here: (.*?):", TYPESCRIPT.read_text(), re.MULTILINE)[0])
    assert named | set(own) | {"on_drop"} == {option.name for option in OPTIONS}
