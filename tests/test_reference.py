"""The reference has every public name, and every name in it exists; so has the page for users of the TypeScript SDK."""

from __future__ import annotations

import ast
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
HEADINGS = ("## Methods", "## Options", "## Events")
# What the TypeScript SDK's documentation names, of version 0.1.2.
THERE_METHODS = ("run", "run.step", "run.skip", "recordStep", "flush", "events", "reset", "onEvent")
THERE_OPTIONS = (
    "projectKey",
    "endpoint",
    "enabled",
    "defaultMetadata",
    "captureStack",
    "delivery",
    "throwOnSendError",
    "sendTimeoutMs",
    "maxQueueSize",
    "onError",
    "waitUntil",
    "fetch",
)
THERE_FIELDS = ("flowKey", "runId", "stepKey", "status", "metadata", "error.name", "error.message", "error.stack")
# Public to the package alone: what the two middlewares share, and what the job queues do.
SHARED = ("jobs", "optional", "requests", "served")
NAMES = [name for page in sorted(PAGES.glob("*.md")) for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE)]


def test_every_public_name_is_on_one_page_of_the_reference() -> None:
    shown = [name.removeprefix("failpath_otel.") for name in NAMES if name.count(".") == 1]
    assert sorted(shown) == sorted(set(failpath_otel.__all__) - {"__version__"})


def offered() -> dict[str, str | None]:
    """What the integrations and the testing module offer, with docstrings; read, since not all environments can import them."""
    package = ROOT / "failpath_otel"
    sources = [package / "testing.py", *(path for path in (package / "integrations").glob("*.py") if path.stem not in SHARED)]
    return {
        f"failpath_otel.{'.'.join(path.relative_to(package).with_suffix('').parts)}.{node.name}": ast.get_docstring(node)
        for path in sources
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    }


def test_what_the_integrations_and_the_testing_module_offer_is_in_the_reference() -> None:
    assert offered()
    assert set(offered()) - set(NAMES) == set()


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_reference_exists_and_is_documented(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    if module.startswith("failpath_otel.integrations."):
        assert offered()[name]
        return
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
        "StepError": failpath_otel.StepError,
        "StepEvent": failpath_otel.StepEvent,
        "RecordingClient": RecordingClient(flows=False),
    }
    for _, name, _ in [*table(TYPESCRIPT, "## Methods"), *table(TYPESCRIPT, "## Events")]:
        owner, _, method = name.strip("`").rpartition(".")
        if owner in places:
            assert hasattr(places[owner], method), name
        else:
            assert getattr(importlib.import_module(owner), method)


def test_each_name_of_the_typescript_sdk_has_a_row() -> None:
    first = [[re.split(r"[`(]", cell)[1] for cell, *_ in table(TYPESCRIPT, heading) if "`" in cell] for heading in HEADINGS]
    assert [sorted(names) for names in first] == [sorted(names) for names in (THERE_METHODS, THERE_OPTIONS, THERE_FIELDS)]


def test_the_methods_that_the_typescript_sdk_does_not_have_are_named_too() -> None:
    public = {
        name
        for owner in (failpath_otel.FailpathClient, failpath_otel.Run, failpath_otel.Step)
        for name, value in vars(owner).items()
        if not name.startswith("_") and callable(value)
    }
    paragraph = re.findall(r"^Methods only here: (.*?)\n\n", TYPESCRIPT.read_text(), re.MULTILINE | re.DOTALL)[0]
    alike = {name.strip("`").rpartition(".")[2] for _, name, _ in table(TYPESCRIPT, "## Methods")}
    assert public - alike - set(re.findall(r"`(\w+)`", paragraph)) == set()


def test_each_option_is_named_for_users_of_the_typescript_sdk() -> None:
    named = {name.strip("`") for _, name, *_ in table(TYPESCRIPT, "## Options")} - {""}
    own = re.findall(r"`(\w+)`", re.findall(r"^Only here: (.*?):", TYPESCRIPT.read_text(), re.MULTILINE)[0])
    assert named | set(own) | {"on_drop"} == {option.name for option in OPTIONS}
