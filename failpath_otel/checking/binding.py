"""The names that a node of the syntax tree binds."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Binding:
    """A place where a name is bound.

    Attributes:
        kind: ``value``, ``annotation`` (without a value), ``enter`` (of a with), ``each`` (of a for), ``import``,
            ``parameter``, ``definition``, or ``other``.
        node: The expression, import, argument or definition.
        statement: The statement in which it happens.
        detail: Of an import: the module with its dots, and the name in it, empty for the module itself.
        annotation: The type that is written to it.
    """

    kind: str
    node: ast.AST
    statement: ast.AST
    detail: tuple[str, str] = ("", "")
    annotation: ast.expr | None = None


Bound = Iterator[tuple[str, Binding]]


def declared_elsewhere(node: ast.AST) -> list[str]:
    """The names of a ``global`` or ``nonlocal`` statement."""
    return node.names if isinstance(node, ast.Global | ast.Nonlocal) else []


def bindings_of(node: ast.AST, at: ast.AST) -> Bound:
    """The names that this node, part of the statement ``at``, itself binds; what its children bind, they tell."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield from _target(target, "value", node.value, at)
    elif isinstance(node, ast.AnnAssign):
        if isinstance(node.target, ast.Name):
            value = node.value if node.value is not None else node.annotation
            kind = "value" if node.value is not None else "annotation"
            yield node.target.id, Binding(kind, value, at, annotation=node.annotation)
    elif isinstance(node, ast.NamedExpr):
        yield from _target(node.target, "value", node.value, at)
    elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
        yield from _target(node.target, "each", node.iter, at)
    elif isinstance(node, ast.withitem):
        if node.optional_vars is not None:
            yield from _target(node.optional_vars, "enter", node.context_expr, at)
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from _imports(node)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        yield from _function(node, at)
    elif isinstance(node, ast.ClassDef):
        yield node.name, Binding("definition", node, node)
    else:
        yield from _others(node, at)


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, at: ast.AST) -> Bound:
    if not isinstance(node, ast.Lambda):
        yield node.name, Binding("definition", node, node)
    arguments = node.args
    for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
        yield argument.arg, Binding("parameter", argument, at, annotation=argument.annotation)
    for rest in (arguments.vararg, arguments.kwarg):
        if rest is not None:
            # Its annotation is that of each, not of the whole.
            yield rest.arg, Binding("parameter", rest, at)


def _imports(node: ast.Import | ast.ImportFrom) -> Bound:
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield alias.asname or alias.name, Binding("import", node, node, (module, alias.name))
        elif alias.asname is not None:
            yield alias.asname, Binding("import", node, node, (alias.name, ""))
        else:
            first = alias.name.partition(".")[0]
            yield first, Binding("import", node, node, (first, ""))


def _others(node: ast.AST, at: ast.AST) -> Bound:
    if isinstance(node, ast.AugAssign):
        yield from _target(node.target, "other", node, at)
    elif isinstance(node, ast.Delete):
        for target in node.targets:
            yield from _target(target, "other", node, at)
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
        if node.name is not None:
            yield node.name, Binding("other", node, at)
    elif isinstance(node, ast.MatchMapping) and node.rest is not None:
        yield node.rest, Binding("other", node, at)


def _target(target: ast.expr, kind: str, value: ast.AST, at: ast.AST) -> Bound:
    if isinstance(target, ast.Name):
        yield target.id, Binding(kind, value, at)
    elif isinstance(target, ast.Starred):
        yield from _target(target.value, "other", value, at)
    elif isinstance(target, ast.Tuple | ast.List):
        parts = value.elts if kind == "value" and isinstance(value, ast.Tuple | ast.List) else []
        paired = len(parts) == len(target.elts) and not any(isinstance(part, ast.Starred) for part in [*parts, *target.elts])
        for number, part in enumerate(target.elts):
            yield from _target(part, kind if paired else "other", parts[number] if paired else value, at)
