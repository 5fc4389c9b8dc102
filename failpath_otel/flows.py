"""flows.json as data: the flows that the service declares, their steps in order, and their edges.

The file is written by Failpath's own command line; this module reads it tolerantly and never writes it. Only
``flows[].slug`` and ``nodes[].sdkStepKey`` are certain to be there; what is unknown is passed over.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from failpath_otel.errors import ConfigError

DEFAULT_PATH: Final = Path(".failpath") / "flows.json"
STRICT: Final = "strict"


@dataclass(frozen=True)
class Node:
    """A step that a flow declares."""

    step_key: str
    label: str


@dataclass(frozen=True)
class Edge:
    """``target`` comes after ``source``; both are step keys."""

    source: str
    target: str


@dataclass(frozen=True)
class Flow:
    """A declared flow. ``nodes`` keep the order of the file."""

    slug: str
    name: str
    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()

    @cached_property
    def step_keys(self) -> frozenset[str]:
        """The keys of all declared steps."""
        return frozenset(node.step_key for node in self.nodes)

    @cached_property
    def _arrows(self) -> tuple[Edge, ...]:
        # Without edges the order of the nodes stands in for them.
        keys = [node.step_key for node in self.nodes]
        return self.edges or tuple(Edge(source, target) for source, target in pairwise(keys))

    @cached_property
    def _before(self) -> Mapping[str, frozenset[str]]:
        return _reach((edge.target, edge.source) for edge in self._arrows)

    @cached_property
    def _after(self) -> Mapping[str, frozenset[str]]:
        return _reach((edge.source, edge.target) for edge in self._arrows)

    def ancestors(self, step_key: str) -> frozenset[str]:
        """Every step that comes before this one: by the edges, or by the order of the nodes where there are no edges."""
        return self._before.get(step_key, frozenset())

    def descendants(self, step_key: str) -> frozenset[str]:
        """Every step that comes after this one, by the same rule."""
        return self._after.get(step_key, frozenset())

    @cached_property
    def ordered_keys(self) -> tuple[str, ...]:
        """The step keys, each after its ancestors; among equals the order of the file, which cycles keep too."""
        done: list[str] = []
        waiting = [node.step_key for node in self.nodes]
        while waiting:
            left = set(waiting)
            ready = next((key for key in waiting if left.isdisjoint(self.ancestors(key) - {key})), waiting[0])
            waiting.remove(ready)
            done.append(ready)
        return tuple(done)


@dataclass(frozen=True)
class Flows:
    """The flows of one file, by slug. Empty where there is no file."""

    by_slug: Mapping[str, Flow] = field(default_factory=dict[str, Flow])
    path: Path | None = None

    def __iter__(self) -> Iterator[Flow]:
        return iter(self.by_slug.values())

    def __len__(self) -> int:
        return len(self.by_slug)

    def get(self, slug: str) -> Flow | None:
        """The flow with this slug, if it is declared."""
        return self.by_slug.get(slug)


def split_strict(given: str) -> tuple[bool, str]:
    """Whether unknown keys are to be errors (``strict``, ``strict:PATH``), and the path, empty where there is none."""
    mode, colon, path = given.partition(":")
    if mode == STRICT and (colon or not path):
        return True, path
    return False, given


def find_flows_file(start: Path) -> Path | None:
    """The nearest ``.failpath/flows.json``, looked for in ``start`` and then in each folder above it."""
    start = start.absolute()
    for folder in (start, *start.parents):
        candidate = folder / DEFAULT_PATH
        if candidate.is_file():
            return candidate
    return None


def load_flows(path: Path) -> Flows:
    """Reads a flows.json.

    Raises:
        ConfigError: The file cannot be read, is no JSON, or is no object with a list ``flows``.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"flows file {path} cannot be read: {error.strerror or error}") from error
    try:
        content: Any = msgspec.json.decode(raw.removeprefix(codecs.BOM_UTF8))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"flows file {path} is not valid JSON: {error}") from error
    return parse_flows(content, path)


def parse_flows(content: Any, path: Path | None = None) -> Flows:
    """The flows in decoded JSON.

    Raises:
        ConfigError: ``content`` is no object with a list ``flows``.
    """
    listed: Any = cast("dict[str, Any]", content).get("flows") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        kind = type(cast("object", content)).__name__
        raise ConfigError(f'flows file {path or ""} must hold an object with a list "flows", got {kind}')
    by_slug: dict[str, Flow] = {}
    for entry in _objects(cast("Any", listed)):
        if (flow := _parse_flow(entry)) is not None:
            by_slug.setdefault(flow.slug, flow)
    return Flows(by_slug, path)


def _parse_flow(entry: dict[str, Any]) -> Flow | None:
    slug = entry.get("slug")
    if not isinstance(slug, str) or not slug:
        return None
    nodes: dict[str, Node] = {}
    key_of: dict[str, str] = {}
    for node in _objects(entry.get("nodes")):
        key = node.get("sdkStepKey")
        if not isinstance(key, str) or not key:
            continue
        nodes.setdefault(key, Node(key, _text(node, "label", "name") or key))
        # Edges may name a node by its id as well as by its key.
        if isinstance(node.get("id"), str | int):
            key_of.setdefault(str(node["id"]), key)
    key_of.update({key: key for key in nodes})
    edges: dict[Edge, None] = {}
    for edge in _objects(entry.get("edges")):
        source = key_of.get(_end(edge, "source", "from") or "")
        target = key_of.get(_end(edge, "target", "to") or "")
        if source is not None and target is not None and source != target:
            edges[Edge(source, target)] = None
    return Flow(slug, _text(entry, "name", "label") or slug, tuple(nodes.values()), tuple(edges))


def _objects(value: Any) -> list[dict[str, Any]]:
    items = cast("Iterable[Any]", value) if isinstance(value, list) else ()
    return [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]


def _text(entry: dict[str, Any], *names: str) -> str | None:
    return next((entry[name] for name in names if isinstance(entry.get(name), str) and entry[name]), None)


def _end(edge: dict[str, Any], *names: str) -> str | None:
    return next((str(edge[name]) for name in names if isinstance(edge.get(name), str | int)), None)


def _reach(arrows: Iterable[tuple[str, str]]) -> Mapping[str, frozenset[str]]:
    """For each step that has an arrow, the steps that can be reached from it along the arrows."""
    following: dict[str, list[str]] = {}
    for source, target in arrows:
        following.setdefault(source, []).append(target)
    reached: dict[str, frozenset[str]] = {}
    for start in following:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for target in following.get(waiting.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        reached[start] = frozenset(seen)
    return reached
