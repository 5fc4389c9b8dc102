"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning", "note"]
Code = Literal["unknown-flow", "unknown-step", "unresolved-key", "not-reported", "syntax-error", "unreadable"]


@dataclass(frozen=True)
class Severities:
    """Of what is no error by itself; ``None``: it is not said.

    Attributes:
        not_reported: Of a declared step that no code reports.
        unresolved: Of a key that is known only when the code runs.
    """

    not_reported: Severity | None = "warning"
    unresolved: Severity | None = "note"


@dataclass(frozen=True)
class Diagnostic:
    """One finding. Lines and columns count from 1, columns in characters.

    Attributes:
        code: What kind it is.
        severity: An ``error`` makes the check fail.
        message: What is wrong, with the nearest match where there is one.
        flow: The flow's slug, where it is known.
        key: The key or slug in question.
        suggestion: The nearest that is declared.
    """

    path: Path
    line: int
    column: int
    end_line: int
    end_column: int
    code: Code
    severity: Severity
    message: str
    flow: str | None = None
    key: str | None = None
    suggestion: str | None = None

    def order(self) -> tuple[bool, str, int, int, str]:
        """By path and line; what is missing in the code after what is wrong in it."""
        return self.code == "not-reported", str(self.path), self.line, self.column, self.message


@dataclass(frozen=True)
class Coverage:
    """The nodes of a flow that code reports, and those that none does, in the order of the flows.json at ``path``."""

    path: Path
    flow: str
    reported: tuple[str, ...]
    not_reported: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """Everything that was found, by path and line.

    Attributes:
        files: How many files were looked at.
        coverage: Of each flow.
    """

    findings: tuple[Diagnostic, ...]
    files: int
    coverage: tuple[Coverage, ...]

    def with_(self, other: Report) -> Report:
        """This report and another one, of other files against another flows.json."""
        findings = sorted([*self.findings, *other.findings], key=Diagnostic.order)
        return Report(tuple(findings), self.files + other.files, (*self.coverage, *other.coverage))

    def count(self, severity: Severity) -> int:
        """How many findings are of this severity."""
        return sum(finding.severity == severity for finding in self.findings)
