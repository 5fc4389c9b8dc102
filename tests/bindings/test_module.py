"""The generated module: what it holds, that it is Python, and that formatters leave it alone."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failpath_otel import FlowKey
from failpath_otel.bindings import MARK, render_module
from failpath_otel.bindings.literals import docstring, literal
from failpath_otel.flows import Flow, Flows, Node, load_flows

SOURCE = ".failpath/flows.json"


def executed(text: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "generated"}
    exec(compile(text, "generated.py", "exec", dont_inherit=True), names)
    return names


def test_the_golden_module_is_what_the_golden_flows_give(repository: Path) -> None:
    golden = (repository / "tests" / "typed" / "shop_flows.py").read_text(encoding="utf-8")
    assert render_module(load_flows(repository / "tests" / "golden" / "flows.json"), "flows.json") == golden
    assert golden.startswith(MARK)


def test_flows_and_keys_are_there_by_name(repository: Path) -> None:
    names = executed(render_module(load_flows(repository / SOURCE), SOURCE))
    assert names["checkout"] == FlowKey("checkout")
    assert names["checkout"].charge_card == "charge-card"
    assert names["payment_webhook"].slug == "payment-webhook"
    assert names["CheckoutFlow"].__doc__ == "Checkout"


def formatted(text: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--isolated", *options, "--stdin-filename", "flows.py", "-"],
        input=text.encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


needs_ruff = pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="ruff is not installed; `make check` has it")


@needs_ruff
@pytest.mark.parametrize("length", ["60", "88", "128"])
def test_ruff_leaves_it_alone_at_any_line_length(repository: Path, length: str) -> None:
    text = render_module(load_flows(repository / "tests" / "golden" / "flows.json"), SOURCE)
    assert formatted(text, "--line-length", length) == text


@needs_ruff
def test_it_is_written_as_ruff_would_without_being_told_to_leave_it_alone(repository: Path) -> None:
    text = render_module(load_flows(repository / SOURCE), SOURCE).replace("# fmt: off\n", "")
    assert formatted(text) == text


texts = st.text(min_size=1, max_size=12)
nodes = st.lists(st.builds(Node, texts, texts), max_size=5, unique_by=lambda node: node.step_key)
flow_lists = st.lists(st.builds(Flow, texts, texts, nodes.map(tuple)), max_size=4, unique_by=lambda flow: flow.slug)


@given(flow_lists)
@settings(max_examples=200)
def test_any_text_gives_a_module_that_knows_every_flow_and_key(listed: list[Flow]) -> None:
    flows = Flows({flow.slug: flow for flow in listed})
    names = executed(render_module(flows, SOURCE))
    known = {value.slug: value for value in names.values() if isinstance(value, FlowKey)}
    assert known.keys() == flows.by_slug.keys()
    for flow in flows:
        held = [value for name, value in vars(type(known[flow.slug])).items() if not name.startswith("__")]
        assert held == [node.step_key for node in flow.nodes]


@given(st.text())
def test_a_literal_is_the_text_on_one_line_of_visible_characters(text: str) -> None:
    written = literal(text)
    assert ast.literal_eval(written) == text
    assert written.isprintable()


@given(st.text(st.sampled_from("\"\\'a \n\u202e")))
def test_a_docstring_is_the_words_of_the_label(text: str) -> None:
    assert ast.literal_eval(docstring(text)) == (" ".join(text.split()) or ".")


def test_no_flows_give_a_module_without_names() -> None:
    assert [name for name in executed(render_module(Flows(), SOURCE)) if not name.startswith("__")] == []


@needs_ruff
@pytest.mark.parametrize("rules", ["E,F,I,N,D,UP,RUF", "F", "A,D,E,I,N,PGH,PL,RUF,UP"])
@pytest.mark.parametrize("target", ["py310", "py313"])
def test_ruff_finds_nothing_in_it(repository: Path, rules: str, target: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", rules, "--target-version", target]
    path = repository / "tests" / "typed" / "shop_flows.py"
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
