"""Source files: read, parsed, with the scope of every node and the names that each scope binds."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from failpath_otel.checking.binding import Binding, bindings_of, declared_elsewhere

ScopeNode = (
    ast.Module
    | ast.FunctionDef
    | ast.AsyncFunctionDef
    | ast.ClassDef
    | ast.Lambda
    | ast.ListComp
    | ast.SetComp
    | ast.DictComp
    | ast.GeneratorExp
)
_SCOPES: Final = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Lambda,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)
Functions = ast.FunctionDef | ast.AsyncFunctionDef


class UnreadableError(Exception):
    """A file that is no Python source as this interpreter knows it; ``str(error)`` is the reason."""

    def __init__(self, reason: str, line: int = 1, column: int = 1) -> None:
        super().__init__(reason)
        self.line = line
        self.column = column


@dataclass(eq=False)
class Scope:
    """A module, class, function, lambda or comprehension, with what it binds."""

    node: ScopeNode
    parent: Scope | None
    bindings: dict[str, list[Binding]] = field(default_factory=dict[str, list[Binding]])
    elsewhere: dict[str, Scope] = field(default_factory=dict[str, "Scope"])
    """Names of ``global`` and ``nonlocal`` statements, with the scope that they belong to."""

    def bind(self, name: str, binding: Binding) -> None:
        """Notes a binding, in the scope that the name belongs to."""
        scope = self.elsewhere.get(name, self)
        scope.bindings.setdefault(name, []).append(binding)


class Source:
    """One source file.

    Raises:
        UnreadableError: It cannot be parsed.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        text = _text(path.read_bytes())
        self.lines = text.split("\n")
        self.tree = _parsed(text, path)
        self.module = Scope(self.tree, None)
        self.parents: dict[ast.AST, ast.AST] = {}
        self.scopes: dict[ast.AST, Scope] = {}
        self._own: dict[ast.AST, Scope] = {self.tree: self.module}
        self._note_scopes()

    def scope_of(self, node: ast.AST) -> Scope:
        """The scope in which a node is evaluated."""
        return self.scopes.get(node, self.module)

    def own_scope(self, node: ast.AST) -> Scope:
        """The scope that a definition opens."""
        return self._own[node]

    def column(self, line: int, offset: int) -> int:
        """The column, counted in characters from 1, of an offset in bytes, as the parser gives it."""
        text = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        return len(text.encode("utf-8", "surrogatepass")[:offset].decode("utf-8", "replace")) + 1

    def statement_of(self, node: ast.AST) -> ast.AST:
        """The statement, or what stands for one, that a node is part of."""
        while not isinstance(node, ast.stmt) and node in self.parents:
            node = self.parents[node]
        return node

    def adopt(self, expression: ast.expr, at: ast.AST) -> ast.expr:
        """An expression out of a string, such as a quoted annotation, takes its place at ``at``."""
        scope = self.scope_of(at)
        for node in ast.walk(expression):
            self.scopes[node] = scope
        return expression

    def _note_scopes(self) -> None:
        waiting: list[tuple[ast.AST, Scope]] = [(self.tree, self.module)]
        order: list[tuple[ast.AST, Scope]] = []
        while waiting:
            node, scope = waiting.pop()
            self.scopes[node] = scope
            order.append((node, scope))
            inner = scope
            if isinstance(node, _SCOPES):
                inner = self._own[node] = Scope(node, scope)
            for child in ast.iter_child_nodes(node):
                self.parents[child] = node
                waiting.append((child, scope if _evaluated_outside(node, child) else inner))
        for node, scope in order:
            for name in declared_elsewhere(node):
                scope.elsewhere[name] = self._declared(node, scope, name)
        for node, scope in order:
            for name, binding in bindings_of(node, self.statement_of(node)):
                # Parameters belong to what they are parameters of; a walrus in a comprehension to what is around it.
                target = self._own[node] if binding.kind == "parameter" else scope
                while binding.kind == "value" and isinstance(node, ast.NamedExpr) and _is_comprehension(target.node):
                    target = target.parent or self.module
                target.bind(name, binding)

    def _declared(self, node: ast.AST, scope: Scope, name: str) -> Scope:
        if isinstance(node, ast.Global):
            return self.module
        around = scope.parent
        while around is not None and name not in _assigned(around.node):
            around = around.parent
        return around or self.module


def _assigned(node: ast.AST) -> Iterator[str]:
    return (part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store))


def _is_comprehension(node: ast.AST) -> bool:
    return isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp)


def _evaluated_outside(node: ast.AST, child: ast.AST) -> bool:
    """Whether a part of a definition is evaluated where the definition stands, not in it."""
    if isinstance(node, Functions):
        return child in node.decorator_list or child is node.returns or child is node.args
    if isinstance(node, ast.Lambda):
        return child is node.args
    if isinstance(node, ast.ClassDef):
        return child in node.decorator_list or child in node.bases or child in node.keywords
    return False


def _text(raw: bytes) -> str:
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        text = raw.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise UnreadableError(f"it cannot be decoded: {error}") from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _parsed(text: str, path: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, str(path))
    except SyntaxError as error:
        raise UnreadableError(error.msg, error.lineno or 1, error.offset or 1) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise UnreadableError(str(error) or "it is nested too deeply") from error
