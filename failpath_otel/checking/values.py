"""What an expression is known to be without running it. ``None`` stands for "not known"."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Final

from failpath_otel.checking.source import Source

CLIENTS: Final = frozenset(
    {
        "failpath_otel.FailpathClient",
        "failpath_otel.client.FailpathClient",
        "failpath_otel.testing.RecordingClient",
    }
)
RUNS: Final = frozenset({"failpath_otel.Run", "failpath_otel.steps.run.Run"})
CURRENT_RUNS: Final = frozenset({"failpath_otel.current_run", "failpath_otel.steps.run.current_run"})
FLOW_KEYS: Final = frozenset({"failpath_otel.FlowKey", "failpath_otel.flow_key.FlowKey"})
CLIENT_METHODS: Final = frozenset({"run", "step", "record_step"})
RUN_METHODS: Final = frozenset({"step", "skip"})


@dataclass(frozen=True)
class Text:
    """Text: each of the options may be the one."""

    options: frozenset[str]


@dataclass(frozen=True)
class Nothing:
    """The constant ``None``."""


@dataclass(frozen=True)
class External:
    """Something of a module that is not part of the tree, by its full name."""

    name: str


@dataclass(frozen=True)
class ModuleOf:
    """A module of the tree."""

    source: Source


@dataclass(frozen=True)
class ClassOf:
    """A class of the tree."""

    source: Source
    node: ast.ClassDef


@dataclass(frozen=True)
class FunctionOf:
    """A function of the tree."""

    source: Source
    node: ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class InstanceOf:
    """An instance of a class of the tree."""

    of: ClassOf


@dataclass(frozen=True)
class FlowRef:
    """A generated flow; ``of`` holds its step keys as attributes."""

    slug: str
    of: ClassOf | None = None


@dataclass(frozen=True)
class ClientOf:
    """A client."""


@dataclass(frozen=True)
class RunOf:
    """A run of one of these flows; ``None``: of a flow that is not known."""

    flows: frozenset[str] | None = None


@dataclass(frozen=True)
class Method:
    """A method of a client or a run."""

    owner: ClientOf | RunOf
    name: str


@dataclass(frozen=True)
class Items:
    """A tuple, list or set that is written out."""

    values: tuple[Value | None, ...]


Value = Text | Nothing | External | ModuleOf | ClassOf | FunctionOf | InstanceOf | FlowRef | ClientOf | RunOf | Method | Items


def united(values: list[Value | None]) -> Value | None:
    """What something is that is bound in several places: known where they agree, ``None`` constants left aside."""
    kept = list(dict.fromkeys(value for value in values if not isinstance(value, Nothing)))
    if len(kept) == 1:
        return kept[0]
    if kept and all(isinstance(value, RunOf) for value in kept):
        flows = [value.flows for value in kept if isinstance(value, RunOf)]
        known = [flow for flow in flows if flow is not None]
        return RunOf(frozenset[str]().union(*known) if len(known) == len(flows) else None)
    return Nothing() if values and not kept else None


def either(values: list[Value | None]) -> Value | None:
    """What an expression is that takes one of these, such as ``a if x else b``: of text, all are options."""
    kept = [value for value in values if not isinstance(value, Nothing)]
    texts = [value for value in kept if isinstance(value, Text)]
    if texts and len(texts) == len(kept):
        return Text(frozenset[str]().union(*(text.options for text in texts)))
    return united(values)
