"""The check itself: uses in a source tree against the flows that are declared."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from failpath_otel.checking.declared import place_in_flows
from failpath_otel.checking.diagnostics import Code, Coverage, Diagnostic, Report, Severities, Severity
from failpath_otel.checking.evaluate import Evaluator
from failpath_otel.checking.modules import Modules
from failpath_otel.checking.source import Source, UnreadableError
from failpath_otel.checking.uses import Use, uses_in
from failpath_otel.flows import DEFAULT_PATH, Flows
from failpath_otel.nearest import nearest


def check_tree(paths: Sequence[Path], flows: Flows, severities: Severities | None = None) -> Report:
    """Looks at each file for flows and steps that are not declared, and for declared ones that no file reports.

    Args:
        paths: Python files. What these import may be read too, to know constants and clients; it is not checked.
        flows: What is declared.
        severities: Of what is no error by itself.
    """
    check = _Check(flows, severities or Severities())
    for path in paths:
        check.look_at(path)
    findings = [*check.findings, *check.not_reported()]
    findings.sort(key=Diagnostic.order)
    return Report(tuple(findings), len(paths), check.coverage())


class _Check:
    def __init__(self, flows: Flows, severities: Severities) -> None:
        self.findings: list[Diagnostic] = []
        self._flows = flows
        self._path = flows.path or DEFAULT_PATH
        self._severities = severities
        self._modules = Modules()
        self._evaluator = Evaluator(self._modules, flows.by_slug)
        self._reported: set[tuple[str, str]] = set()
        self._open: set[str] = set()

    def look_at(self, path: Path) -> None:
        """Checks one file."""
        try:
            source = self._modules.read(path)
        except UnreadableError as error:
            place = (error.line, error.column, error.line, error.column)
            self.findings.append(Diagnostic(path, *place, "syntax-error", "error", f"not checked: {error}"))
            return
        except OSError as error:
            message = f"not checked: {error.strerror or error}"
            self.findings.append(Diagnostic(path, 1, 1, 1, 1, "unreadable", "error", message))
            return
        for use in uses_in(source, self._evaluator):
            self.findings += self._look_at_flow(source, use) if use.kind == "flow" else self._look_at_step(source, use)

    def _look_at_flow(self, source: Source, use: Use) -> Iterator[Diagnostic]:
        if use.keys is None:
            yield from self._unresolved_key(source, use, "flow")
            return
        for slug in sorted(use.keys):
            if self._flows.get(slug) is None:
                yield self._unknown(
                    source, use.node, "unknown-flow", f"flow {slug!r} is not declared", slug, self._flows.by_slug
                )

    def _look_at_step(self, source: Source, use: Use) -> Iterator[Diagnostic]:
        candidates = [flow for flow in self._flows if use.flows is None or flow.slug in use.flows]
        if use.keys is None:
            self._open.update(flow.slug for flow in candidates)
            if use.certain:
                yield from self._unresolved_key(source, use, "step")
            return
        self._reported.update((flow.slug, key) for flow in candidates for key in use.keys)
        if not use.certain or not candidates:  # of a flow that is not declared, which is said where it is named
            return
        known = frozenset(key for flow in candidates for key in flow.step_keys)
        of = (
            f"of flow {candidates[0].slug!r}"
            if use.flows is not None and len(candidates) == 1
            else "of any flow that it may be"
        )
        if use.flows is None:
            of = "of any flow"
        for key in sorted(use.keys - known):
            message = f"step {key!r} {of} is not declared"
            yield self._unknown(source, use.node, "unknown-step", message, key, known, self._the_one(use.flows))

    def _the_one(self, flows: frozenset[str] | None) -> str | None:
        return next(iter(flows)) if flows is not None and len(flows) == 1 else None

    def _unknown(
        self,
        source: Source,
        node: ast.expr,
        code: Code,
        message: str,
        key: str,
        known: Collection[str],
        flow: str | None = None,
    ) -> Diagnostic:
        found = nearest(key, known)
        meant = "" if found is None else f"; did you mean {found!r}?"
        return _finding(source, node, code, "error", message + meant, flow, key, found)

    def _unresolved_key(self, source: Source, use: Use, kind: str) -> Iterator[Diagnostic]:
        if self._severities.unresolved is not None:
            message = f"the {kind} key {_short(use.node)} is known only when the code runs"
            flow = self._the_one(use.flows)
            yield _finding(source, use.node, "unresolved-key", self._severities.unresolved, message, flow)

    def coverage(self) -> tuple[Coverage, ...]:
        """Which nodes are reported, by flow."""
        return tuple(
            Coverage(
                self._path,
                flow.slug,
                tuple(node.step_key for node in flow.nodes if (flow.slug, node.step_key) in self._reported),
                tuple(node.step_key for node in flow.nodes if (flow.slug, node.step_key) not in self._reported),
            )
            for flow in self._flows
        )

    def not_reported(self) -> Iterator[Diagnostic]:
        """A finding for each node that no code reports; one for a flow of which none is."""
        severity = self._severities.not_reported
        if severity is None:
            return
        for covered in self.coverage():
            slug = covered.flow
            perhaps = ", unless under a key that is known only when the code runs" if slug in self._open else ""
            whole = bool(covered.not_reported and not covered.reported)
            for key in [None] if whole else covered.not_reported:
                what = f"no step of flow {slug!r} is" if key is None else f"step {key!r} of flow {slug!r} is not"
                message = f"{what} reported by the code that was checked{perhaps}"
                line, column = place_in_flows(self._path, slug, key)
                place = (line, column, line, column)
                yield Diagnostic(self._path, *place, "not-reported", severity, message, slug, key)


def _finding(
    source: Source,
    node: ast.expr,
    code: Code,
    severity: Severity,
    message: str,
    flow: str | None = None,
    key: str | None = None,
    suggestion: str | None = None,
) -> Diagnostic:
    end = node.end_lineno or node.lineno
    end_column = source.column(end, node.end_col_offset or 0)
    start = source.column(node.lineno, node.col_offset)
    return Diagnostic(source.path, node.lineno, start, end, end_column, code, severity, message, flow, key, suggestion)


def _short(node: ast.expr) -> str:
    try:
        text = " ".join(ast.unparse(node).split())
    except (ValueError, RecursionError):
        return "here"
    return text if len(text) <= 60 else f"{text[:57]}..."
