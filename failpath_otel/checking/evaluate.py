"""What expressions are, as far as the sources tell. What is not certain is not known."""

from __future__ import annotations

import ast
from collections.abc import Collection
from typing import Final

from failpath_otel.checking.binding import Binding
from failpath_otel.checking.classes import attribute_bindings, is_a
from failpath_otel.checking.modules import Modules
from failpath_otel.checking.reaching import reaching
from failpath_otel.checking.source import Functions, Scope, Source
from failpath_otel.checking.values import (
    CLIENT_METHODS,
    CLIENTS,
    CURRENT_RUNS,
    FLOW_KEYS,
    RUN_METHODS,
    RUNS,
    ClassOf,
    ClientOf,
    External,
    FlowRef,
    FunctionOf,
    InstanceOf,
    Items,
    Method,
    ModuleOf,
    Nothing,
    RunOf,
    Text,
    Value,
    either,
    united,
)

_MAX_DEPTH: Final = 60
_WRAPPERS: Final = frozenset(
    {
        "Annotated",
        "AsyncGenerator",
        "AsyncIterator",
        "Awaitable",
        "ClassVar",
        "Final",
        "Generator",
        "Iterable",
        "Iterator",
        "Optional",
    }
)
_OWN_PACKAGE: Final = "failpath_otel"


class Evaluator:
    """Evaluates expressions of the tree's sources.

    Args:
        modules: The sources.
        slugs: The flows that are declared, by which a run is known whose client is not.
    """

    def __init__(self, modules: Modules, slugs: Collection[str]) -> None:
        self.modules = modules
        self._slugs = frozenset(slugs)
        self._known: dict[tuple[ast.AST, bool], Value | None] = {}
        self._imports: dict[Binding, Value | None] = {}
        self._depth = 0

    def value(self, source: Source, node: ast.AST) -> Value | None:
        """What an expression is."""
        return self._once(source, node, annotation=False)

    def annotated(self, source: Source, node: ast.AST) -> Value | None:
        """What something is that has this annotation."""
        return self._once(source, node, annotation=True)

    def _once(self, source: Source, node: ast.AST, *, annotation: bool) -> Value | None:
        key = (node, annotation)
        if key in self._known:
            return self._known[key]
        if self._depth >= _MAX_DEPTH:
            return None
        self._known[key] = None  # where it leads back to itself it is not known
        self._depth += 1
        try:
            found = self._annotation(source, node) if annotation else self._expression(source, node)
        finally:
            self._depth -= 1
        self._known[key] = found
        return found

    def _expression(self, source: Source, node: ast.AST) -> Value | None:
        if isinstance(node, ast.Constant):
            return _constant(node.value)
        if isinstance(node, ast.Name):
            return self.name(source, node)
        if isinstance(node, ast.Attribute):
            return self._attribute_expression(source, node)
        if isinstance(node, ast.Call):
            return self._call(source, node)
        if isinstance(node, ast.Await | ast.NamedExpr | ast.Starred | ast.FormattedValue):
            return self.value(source, node.value)
        if isinstance(node, ast.IfExp):
            return either([self.value(source, node.body), self.value(source, node.orelse)])
        if isinstance(node, ast.BoolOp):
            return either([self.value(source, part) for part in node.values])
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            return Items(tuple(self.value(source, part) for part in node.elts))
        return self._composed(source, node)

    def _attribute_expression(self, source: Source, node: ast.Attribute) -> Value | None:
        owner = self.value(source, node.value)
        if isinstance(owner, External):
            # After `import shop.keys`, where shop is a folder without a module of its own.
            module = self.modules.imported(owner.name, source)
            owner = owner if module is None else ModuleOf(module)
        return self.attribute(owner, node.attr)

    def _composed(self, source: Source, node: ast.AST) -> Value | None:
        """Text made of parts, and an item of what is written out."""
        if isinstance(node, ast.JoinedStr):
            plain = all(not isinstance(part, ast.FormattedValue) or _is_plain(part) for part in node.values)
            return _joined([self.value(source, part) for part in node.values]) if plain else None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return _joined([self.value(source, node.left), self.value(source, node.right)])
        return None

    # Names

    def name(self, source: Source, node: ast.Name) -> Value | None:
        """What a name is where it stands."""
        scope: Scope | None = source.scope_of(node)
        own = scope
        while scope is not None:
            bindings = scope.bindings.get(node.id)
            if bindings and (scope is own or not isinstance(scope.node, ast.ClassDef)):
                if len(bindings) > 1 and scope is own and node in source.parents:
                    decided = reaching(source, node, bindings)
                    if decided is not None:
                        return self._bound(source, decided)
                return self._united(source, bindings)
            scope = scope.parent
        return None

    def _united(self, source: Source, bindings: list[Binding]) -> Value | None:
        return united([self._bound(source, binding) for binding in bindings])

    def _bound(self, source: Source, binding: Binding) -> Value | None:
        node = binding.node
        if binding.kind in ("value", "enter"):
            value = self.value(source, node)
            return self.annotated(source, binding.annotation) if value is None and binding.annotation is not None else value
        if binding.kind == "annotation":
            return self.annotated(source, node)
        if binding.kind == "each":
            items = self.value(source, node)
            return either(list(items.values)) if isinstance(items, Items) else None
        if binding.kind == "import":
            if binding not in self._imports:
                self._imports[binding] = None  # modules may import each other
                self._imports[binding] = self._imported(source, *binding.detail)
            return self._imports[binding]
        if binding.kind == "parameter" and isinstance(node, ast.arg):
            return self._parameter(source, node, binding)
        if isinstance(node, ast.ClassDef):
            return ClassOf(source, node)
        return FunctionOf(source, node) if binding.kind == "definition" and isinstance(node, Functions) else None

    def _parameter(self, source: Source, node: ast.arg, binding: Binding) -> Value | None:
        if binding.annotation is not None:
            return self.annotated(source, binding.annotation)
        function = binding.statement
        holder = source.parents.get(function)
        if isinstance(function, Functions) and isinstance(holder, ast.ClassDef):
            arguments = [*function.args.posonlyargs, *function.args.args]
            static = any(isinstance(name, ast.Name) and name.id == "staticmethod" for name in function.decorator_list)
            if arguments and arguments[0] is node and not static:
                return InstanceOf(ClassOf(source, holder))
        if node.arg == "failpath_client":  # the fixture of the pytest plugin
            return ClientOf()
        # A fixture of the same file.
        for other in source.module.bindings.get(node.arg, ()):
            if isinstance(other.node, Functions) and any(map(_is_fixture, other.node.decorator_list)):
                return self._returned(FunctionOf(source, other.node))
        return None

    def _imported(self, source: Source, module: str, name: str) -> Value | None:
        if module.partition(".")[0] == _OWN_PACKAGE:
            return External(f"{module}.{name}" if name else module)
        found = self.modules.imported(module, source)
        if not name:
            return External(module) if found is None else ModuleOf(found)
        if found is not None and name in found.module.bindings:
            return self._united(found, found.module.bindings[name])
        inner = self.modules.imported(f"{module}{'' if module.endswith('.') else '.'}{name}", source)
        if inner is not None:
            return ModuleOf(inner)
        return External(f"{module}.{name}") if found is None else None

    # Attributes and calls

    def attribute(self, owner: Value | None, name: str) -> Value | None:
        """What an attribute of something is."""
        if isinstance(owner, External):
            return External(f"{owner.name}.{name}")
        if isinstance(owner, ModuleOf):
            bindings = owner.source.module.bindings.get(name)
            return self._united(owner.source, bindings) if bindings else self._imported(owner.source, ".", name)
        if isinstance(owner, ClientOf | RunOf):
            known = CLIENT_METHODS if isinstance(owner, ClientOf) else RUN_METHODS
            return Method(owner, name) if name in known else None
        if isinstance(owner, FlowRef):
            return Text(frozenset({owner.slug})) if name == "slug" else self._of_class(owner.of, name)
        if isinstance(owner, Text):
            return owner if name == "value" else None
        if isinstance(owner, InstanceOf):
            return self._of_class(owner.of, name)
        return self._of_class(owner, name) if isinstance(owner, ClassOf) else None

    def _of_class(self, of: ClassOf | None, name: str) -> Value | None:
        seen: set[ast.ClassDef] = set()
        while of is not None and of.node not in seen:
            seen.add(of.node)
            bindings = attribute_bindings(of, name)
            if bindings:
                value = self._united(of.source, bindings)
                is_property = isinstance(value, FunctionOf) and any(map(_is_property, value.node.decorator_list))
                return self._returned(value) if is_property and isinstance(value, FunctionOf) else value
            bases = [self.value(of.source, base) for base in of.node.bases]
            of = next((base for base in bases if isinstance(base, ClassOf)), None)
        return None

    def _call(self, source: Source, node: ast.Call) -> Value | None:
        called = self.value(source, node.func)
        if isinstance(called, Method):
            return self._run(source, node) if called.name == "run" else None
        if isinstance(called, FunctionOf):
            return self._returned(called)
        if isinstance(called, ClassOf):
            return self._made(source, node, called)
        if isinstance(called, External):
            return self._made_by_others(source, node, called.name)
        if called is None and isinstance(node.func, ast.Attribute) and node.func.attr == "run":
            # Something unknown that runs a declared flow: whatever holds the client.
            run = self._run(source, node)
            return run if run.flows is not None and run.flows <= self._slugs else None
        return None

    def _run(self, source: Source, node: ast.Call) -> RunOf:
        flow = argument(node, 0, "flow_key")
        value = None if flow is None else self.value(source, flow)
        if isinstance(value, FlowRef):
            return RunOf(frozenset({value.slug}))
        return RunOf(value.options if isinstance(value, Text) else None)

    def _made(self, source: Source, node: ast.Call, of: ClassOf) -> Value | None:
        if is_a(self, of, CLIENTS):
            return ClientOf()
        if is_a(self, of, FLOW_KEYS):
            slug = argument(node, 0, "slug")
            value = None if slug is None else self.value(source, slug)
            return FlowRef(next(iter(value.options)), of) if isinstance(value, Text) and len(value.options) == 1 else None
        return InstanceOf(of)

    def _made_by_others(self, source: Source, node: ast.Call, name: str) -> Value | None:
        first = node.args[0] if node.args else None
        if name in CLIENTS:
            return ClientOf()
        if name in CURRENT_RUNS:
            return RunOf()
        if name in FLOW_KEYS and first is not None:
            value = self.value(source, first)
            return FlowRef(next(iter(value.options))) if isinstance(value, Text) and len(value.options) == 1 else None
        if name in ("typing.cast", "typing_extensions.cast") and first is not None:
            return self.annotated(source, first)
        return None

    def _returned(self, function: FunctionOf) -> Value | None:
        source, node = function.source, function.node
        own = source.own_scope(node)
        parts = [part for part in ast.walk(node) if isinstance(part, ast.Return | ast.Yield) and source.scope_of(part) is own]
        value = united([self.value(source, part.value) for part in parts if part.value is not None])
        if (value is None or isinstance(value, Nothing)) and node.returns is not None:
            return self.annotated(source, node.returns)
        return value

    # Annotations

    def _annotation(self, source: Source, node: ast.AST) -> Value | None:
        if isinstance(node, ast.Constant):
            return self._quoted(source, node) if isinstance(node.value, str) else _constant(node.value)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return united([self.annotated(source, node.left), self.annotated(source, node.right)])
        if isinstance(node, ast.Subscript):
            base = self.value(source, node.value)
            if isinstance(base, External) and base.name.rpartition(".")[2] in _WRAPPERS:
                first = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) and node.slice.elts else node.slice
                return self.annotated(source, first)
            return self._instance(base)
        return self._instance(self.value(source, node))

    def _quoted(self, source: Source, node: ast.Constant) -> Value | None:
        try:
            expression = ast.parse(str(node.value), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
        return self.annotated(source, source.adopt(expression, node))

    def _instance(self, of: Value | None) -> Value | None:
        if isinstance(of, External):
            return ClientOf() if of.name in CLIENTS else RunOf() if of.name in RUNS else None
        if isinstance(of, ClassOf):
            return ClientOf() if is_a(self, of, CLIENTS) else InstanceOf(of)
        return None


def argument(node: ast.Call, position: int, name: str) -> ast.expr | None:
    """The argument of a call, by position or by name; ``None`` where it is left out or unpacked from something."""
    if len(node.args) > position and not any(isinstance(part, ast.Starred) for part in node.args[: position + 1]):
        return node.args[position]
    return next((keyword.value for keyword in node.keywords if keyword.arg == name), None)


def _constant(value: object) -> Value | None:
    if isinstance(value, str):
        return Text(frozenset({value}))
    if isinstance(value, int) and not isinstance(value, bool):
        return Text(frozenset({str(value)}))
    return Nothing() if value is None else None


def _joined(parts: list[Value | None]) -> Text | None:
    options = [""]
    for part in parts:
        if not isinstance(part, Text) or len(options) * len(part.options) > 64:
            return None
        options = [before + after for before in options for after in sorted(part.options)]
    return Text(frozenset(options))


def _is_plain(part: ast.FormattedValue) -> bool:
    return part.conversion in (-1, ord("s")) and part.format_spec is None


def _is_fixture(decorator: ast.expr) -> bool:
    return _last_name(decorator) == "fixture"


def _is_property(decorator: ast.expr) -> bool:
    return _last_name(decorator) in ("property", "cached_property")


def _last_name(node: ast.expr) -> str:
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
