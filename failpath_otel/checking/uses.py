"""Where a source names flows and steps."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from failpath_otel.checking.evaluate import Evaluator, argument
from failpath_otel.checking.source import Source
from failpath_otel.checking.values import FlowRef, Method, RunOf, Text, Value
from failpath_otel.events import semconv

_METHODS: Final = frozenset({"run", "step", "skip", "record_step"})
_IGNORE: Final = "failpath: ignore"


@dataclass(frozen=True)
class Use:
    """A place that names a flow or a step.

    Attributes:
        kind: ``flow`` or ``step``.
        node: The expression.
        keys: What it may be; ``None`` where that is not known.
        flows: Of a step: the flows that its run may be of; ``None`` where that is not known.
        certain: Whether it is surely ours. What is not counts as a report of a step, and is never an error.
    """

    kind: str
    node: ast.expr
    keys: frozenset[str] | None
    flows: frozenset[str] | None = None
    certain: bool = True


def uses_in(source: Source, evaluator: Evaluator) -> Iterator[Use]:
    """Every use in a source, save those on lines with the comment ``failpath: ignore``."""
    for node in ast.walk(source.tree):
        found: Iterator[Use] = iter(())
        if isinstance(node, ast.Call):
            found = _in_call(source, evaluator, node)
        elif isinstance(node, ast.Dict):
            found = _in_attributes(source, evaluator, node)
        for use in found:
            if _IGNORE not in source.lines[use.node.lineno - 1]:
                yield use


def _in_call(source: Source, evaluator: Evaluator, node: ast.Call) -> Iterator[Use]:
    func = node.func
    if not isinstance(func, ast.Name) and not (isinstance(func, ast.Attribute) and func.attr in _METHODS):
        return
    called = evaluator.value(source, func)
    if isinstance(called, Method):
        yield from _by_method(source, evaluator, node, called)
    elif called is None and isinstance(func, ast.Attribute):
        yield from _by_name(source, evaluator, node, func.attr)


def _by_method(source: Source, evaluator: Evaluator, node: ast.Call, method: Method) -> Iterator[Use]:
    if isinstance(method.owner, RunOf):
        yield from _step(source, evaluator, node, method.owner.flows)
    elif method.name == "run":
        yield from _flow(source, evaluator, node)
    elif method.name == "step":
        yield from _step(source, evaluator, node, None)
    else:
        yield from _recorded(source, evaluator, node)


def _by_name(source: Source, evaluator: Evaluator, node: ast.Call, name: str) -> Iterator[Use]:
    """What an unknown object is asked to do: surely a step only where the words say so."""
    if name == "record_step" and {"flow_key", "step_key", "status"} <= {keyword.arg for keyword in node.keywords}:
        yield from _recorded(source, evaluator, node)
    elif name in ("step", "skip"):
        key = argument(node, 0, "step_key")
        keys = None if key is None else _keys(evaluator.value(source, key))
        if key is not None and keys is not None:
            yield Use("step", key, keys, certain=False)


def _recorded(source: Source, evaluator: Evaluator, node: ast.Call) -> Iterator[Use]:
    flow = argument(node, len(node.args), "flow_key")
    flows = None if flow is None else _keys(evaluator.value(source, flow))
    if flow is not None:
        yield Use("flow", flow, flows)
    key = argument(node, len(node.args), "step_key")
    if key is not None:
        yield Use("step", key, _keys(evaluator.value(source, key)), flows)
    if flow is None and key is None and _unpacks(node):
        yield Use("step", node, None)


def _flow(source: Source, evaluator: Evaluator, node: ast.Call) -> Iterator[Use]:
    flow = argument(node, 0, "flow_key")
    if flow is not None:
        yield Use("flow", flow, _keys(evaluator.value(source, flow)))
    elif _unpacks(node):
        yield Use("flow", node, None)


def _step(source: Source, evaluator: Evaluator, node: ast.Call, flows: frozenset[str] | None) -> Iterator[Use]:
    key = argument(node, 0, "step_key")
    if key is not None:
        yield Use("step", key, _keys(evaluator.value(source, key)), flows)
    elif _unpacks(node):
        yield Use("step", node, None, flows)


def _in_attributes(source: Source, evaluator: Evaluator, node: ast.Dict) -> Iterator[Use]:
    """Spans that are steps by their attributes."""
    named: dict[str, ast.expr] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        text = None if key is None else evaluator.value(source, key)
        if isinstance(text, Text) and len(text.options) == 1:
            named[next(iter(text.options))] = value
    flow, step = named.get(semconv.FLOW_SLUG), named.get(semconv.STEP_KEY)
    flows = None if flow is None else _keys(evaluator.value(source, flow))
    if flow is not None and semconv.RUN_ID in named:
        yield Use("flow", flow, flows)
    if step is not None and semconv.RUN_ID in named:
        yield Use("step", step, _keys(evaluator.value(source, step)), flows)


def _keys(value: Value | None) -> frozenset[str] | None:
    if isinstance(value, FlowRef):
        return frozenset({value.slug})
    return value.options if isinstance(value, Text) else None


def _unpacks(node: ast.Call) -> bool:
    return any(isinstance(part, ast.Starred) for part in node.args) or any(keyword.arg is None for keyword in node.keywords)
