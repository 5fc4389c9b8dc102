"""The example of a service that already exports traces: before and after, as processes, against a real sink and server."""

from __future__ import annotations

import difflib
import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

STEPS = ["validate-cart", "charge-card", "reserve-stock", "create-order", "send-receipt-email"]


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    return repository / "examples" / "existing_service"


@pytest.fixture(scope="module")
def example(folder: Path) -> ModuleType:
    """``run.py`` as a module."""
    spec = importlib.util.spec_from_file_location("existing_service_run", folder / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def before(example: ModuleType) -> Any:
    return example.watch("before.py")


@pytest.fixture(scope="module")
def after(example: ModuleType) -> Any:
    return example.watch("after.py")


def kinds(spans: list[Any]) -> Counter[tuple[str, int]]:
    return Counter((span.name, span.kind) for span in spans)


def difference(folder: Path) -> list[str]:
    versions = [(folder / name).read_text().splitlines() for name in ("before.py", "after.py")]
    return [line for line in difflib.unified_diff(*versions, lineterm="", n=0) if re.match(r"[+-](?![+-])", line)]


@pytest.mark.slow
def test_service_answers_as_before(before: Any, after: Any) -> None:
    assert before.answers == after.answers == [201, 402, 201]


@pytest.mark.slow
def test_traces_of_before_are_all_still_there(before: Any, after: Any) -> None:
    assert kinds(before.spans)["POST /checkout", 2] == 3
    steps = Counter({kind: count for kind, count in kinds(after.spans).items() if kind[0].startswith("checkout/")})
    assert kinds(after.spans) - steps == kinds(before.spans)
    assert sum(steps.values()) == 5 + 2 + 5
    assert len({span.trace_id for span in after.spans}) == len({span.trace_id for span in before.spans}) == 3


@pytest.mark.slow
def test_body_of_a_step_is_a_child_of_its_span(after: Any) -> None:
    by_id = {span.span_id: span for span in after.spans}
    parents = {(span.name, by_id[span.parent_span_id].name) for span in after.spans if span.parent_span_id in by_id}
    assert ("POST", "checkout/charge-card") in parents
    assert ("warehouse lookup", "checkout/reserve-stock") in parents
    assert ("checkout/charge-card", "POST /checkout") in parents


@pytest.mark.slow
def test_runs_appear_with_the_ids_of_those_traces(before: Any, after: Any) -> None:
    assert before.runs == []
    shown = {run["runId"]: (run["status"], [step["status"] for step in run["steps"]]) for run in after.runs}
    assert shown == {
        "req_1": ("success", ["success"] * 5),
        "req_2": ("error", ["success", "error", "missing", "missing", "missing"]),
        "req_3": ("success", ["success"] * 4 + ["skipped"]),
    }
    spans = {(span.trace_id.hex(), span.span_id.hex()) for span in after.spans if span.name.startswith("checkout/")}
    reported = {(step["traceId"], step["spanId"]) for run in after.runs for step in run["steps"] if step["attempts"]}
    assert reported == spans
    assert all([step["stepKey"] for step in run["steps"]] == STEPS for run in after.runs)
    assert {step["service"] for run in after.runs for step in run["steps"] if step["attempts"]} == {"orders"}


def test_difference_is_a_few_lines_and_stands_in_the_readme(folder: Path) -> None:
    changed = [line for line in difference(folder) if line[1:].strip() and '"""' not in line]
    assert sum(line.startswith("+") for line in changed) <= 12
    readme = (folder / "README.md").read_text()
    assert [line for line in changed if line not in readme] == []
