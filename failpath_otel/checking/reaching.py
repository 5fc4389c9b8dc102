"""Which binding of a name holds where the name is used, when there are several in one scope."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

from failpath_otel.checking.binding import Binding
from failpath_otel.checking.source import Source

_BLOCKS: Final = ("body", "orelse", "finalbody", "handlers", "cases")


def reaching(source: Source, use: ast.AST, bindings: Sequence[Binding]) -> Binding | None:
    """The one binding that must hold at ``use``; ``None`` where it depends on what ran before.

    From the use upward: statements before it in the same block, then what is around. A branch, a loop or a handler that may
    bind the name in between leaves it open.
    """
    top = source.scope_of(use).node
    node = use
    while node is not top and node in source.parents:
        parent = source.parents[node]
        block = _block_with(parent, node)
        if block is not None:
            for earlier in reversed(block[: block.index(node)]):
                found, decided = _in_statement(source, earlier, bindings)
                if decided:
                    return found
            around, decided = _around(source, parent, bindings)
            if decided:
                return around
        node = parent
    parameters = [binding for binding in bindings if binding.kind == "parameter"]
    return parameters[0] if len(parameters) == 1 else None


def _block_with(parent: ast.AST, node: ast.AST) -> list[ast.AST] | None:
    for name in _BLOCKS:
        block: Any = getattr(parent, name, None)  # of a lambda, an expression
        if isinstance(block, list) and node in block:
            return cast("list[ast.AST]", block)
    return None


def _in_statement(source: Source, statement: ast.AST, bindings: Sequence[Binding]) -> tuple[Binding | None, bool]:
    """The binding that holds after a statement, and whether the statement decides it."""
    within = [binding for binding in bindings if _is_within(source, binding.statement, statement)]
    if not within:
        return None, False
    if isinstance(statement, ast.With | ast.AsyncWith):
        for inner in reversed(statement.body):
            found, decided = _in_statement(source, inner, bindings)
            if decided:
                return found, True
    direct = [binding for binding in within if binding.statement is statement and not _is_conditional(statement)]
    return (direct[-1] if len(direct) == 1 else None), True


def _around(source: Source, parent: ast.AST, bindings: Sequence[Binding]) -> tuple[Binding | None, bool]:
    """The binding by a statement for the block within it: of a with, a for, a condition with ``:=``."""
    if isinstance(parent, ast.While | ast.For | ast.AsyncFor | ast.Try | ast.ExceptHandler):
        within = [binding for binding in bindings if _is_within(source, binding.statement, parent)]
        own = [binding for binding in within if binding.statement is parent]
        if not within:
            return None, False
        return (own[0] if len(own) == len(within) == 1 else None), True
    own = [binding for binding in bindings if binding.statement is parent and binding.kind != "definition"]
    if not own or isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return None, False
    return (own[0] if len(own) == 1 else None), True


def _is_conditional(statement: ast.AST) -> bool:
    return isinstance(statement, ast.If | ast.For | ast.AsyncFor | ast.While | ast.Try | ast.Match)


def _is_within(source: Source, node: ast.AST, statement: ast.AST) -> bool:
    return any(step is statement for step in _upward(source, node))


def _upward(source: Source, node: ast.AST) -> Iterator[ast.AST]:
    yield node
    while node in source.parents:
        node = source.parents[node]
        yield node
