"""Attributes of classes: where they are bound, in the class and in its methods."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from typing import Protocol

from failpath_otel.checking.binding import Binding
from failpath_otel.checking.source import Functions, Source
from failpath_otel.checking.values import ClassOf, External, Value


class Evaluates(Protocol):
    """What is needed of an evaluator."""

    def value(self, source: Source, node: ast.AST) -> Value | None:
        """What an expression is."""
        ...


def is_a(evaluator: Evaluates, of: ClassOf, names: Collection[str]) -> bool:
    """Whether a class descends from one of these, which are not part of the tree."""
    waiting, seen = [of], set[ast.ClassDef]()
    while waiting:
        current = waiting.pop()
        if current.node in seen:
            continue
        seen.add(current.node)
        for base in current.node.bases:
            value = evaluator.value(current.source, base.value if isinstance(base, ast.Subscript) else base)
            if isinstance(value, External) and value.name in names:
                return True
            if isinstance(value, ClassOf):
                waiting.append(value)
    return False


def attribute_bindings(of: ClassOf, name: str) -> list[Binding]:
    """Where an attribute is bound: in the class itself, and as ``self.name = …`` in its methods."""
    own = of.source.own_scope(of.node).bindings.get(name, [])
    return [*own, *_by_methods(of, name)]


def _by_methods(of: ClassOf, name: str) -> Iterator[Binding]:
    for method in of.node.body:
        if not isinstance(method, Functions):
            continue
        arguments = [*method.args.posonlyargs, *method.args.args]
        if not arguments:
            continue
        for node in ast.walk(method):
            yield from _assigned(node, arguments[0].arg, name)


def _assigned(node: ast.AST, own: str, name: str) -> Iterator[Binding]:
    def is_it(target: ast.AST) -> bool:
        return (
            isinstance(target, ast.Attribute)
            and target.attr == name
            and isinstance(target.value, ast.Name)
            and target.value.id == own
        )

    if isinstance(node, ast.Assign):
        if any(map(is_it, node.targets)):
            yield Binding("value", node.value, node)
    elif isinstance(node, ast.AnnAssign) and is_it(node.target):
        kind = "value" if node.value is not None else "annotation"
        yield Binding(kind, node.value or node.annotation, node, annotation=node.annotation)
    elif isinstance(node, ast.AugAssign) and is_it(node.target):
        yield Binding("other", node, node)
