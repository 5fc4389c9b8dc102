"""A flows.json as text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from failpath_otel.flows import Flow, Node

EXAMPLE: Final = (
    Flow(
        "checkout",
        "Checkout",
        (
            Node("validate-cart", "Validate cart"),
            Node("charge-card", "Charge card"),
            Node("send-receipt", "Send receipt"),
        ),
    ),
)
"""What stands in for a project's own flows."""


def as_document(flows: Iterable[Flow]) -> str:
    """The flows as Failpath's command line writes them. Names and labels that say no more than the keys are left out."""
    listed = [_flow(flow) for flow in flows]
    return json.dumps({"flows": listed}, indent=2, ensure_ascii=False) + "\n"


def _flow(flow: Flow) -> dict[str, Any]:
    entry: dict[str, Any] = {"slug": flow.slug}
    if flow.name != flow.slug:
        entry["name"] = flow.name
    entry["nodes"] = [_node(node) for node in flow.nodes]
    if flow.edges:
        entry["edges"] = [{"source": edge.source, "target": edge.target} for edge in flow.edges]
    return entry


def _node(node: Node) -> dict[str, str]:
    entry = {"sdkStepKey": node.step_key}
    return entry if node.label == node.step_key else {**entry, "label": node.label}


def rules_for(flows: Iterable[Flow]) -> str:
    """A spans.json with one rule for each step, by a span of the step's own name, which is for the reader to put right."""
    rules = [_rule(flow, node) for flow in flows for node in flow.nodes]
    return json.dumps({"version": 1, "rules": rules}, indent=2, ensure_ascii=False) + "\n"


def _rule(flow: Flow, node: Node) -> dict[str, Any]:
    return {
        "description": "Put the name of the span here that is this step.",
        "name": node.step_key,
        "flow": flow.slug,
        "step": node.step_key,
        "run": ["parent", "baggage", "trace"],
    }
