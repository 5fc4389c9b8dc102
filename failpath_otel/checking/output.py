"""A report as text, as JSON, and as the annotations of GitHub's workflows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from failpath_otel.checking.diagnostics import Diagnostic, Report

Shown = Callable[[Path], str]
"""How a path is written."""
_GITHUB: Final = {"error": "error", "warning": "warning", "note": "notice"}


def as_text(report: Report, shown: Shown) -> Iterator[str]:
    """A line for each finding, as compilers write them, and a last line with the counts."""
    for finding in report.findings:
        where = f"{shown(finding.path)}:{finding.line}:{finding.column}"
        yield f"{where}: {finding.severity}: {finding.message} [{finding.code}]"
    counts = ", ".join(_plural(report.count(severity), severity) for severity in ("error", "warning", "note"))
    reported = sum(len(covered.reported) for covered in report.coverage)
    nodes = reported + sum(len(covered.not_reported) for covered in report.coverage)
    yield f"{_plural(report.files, 'file')} checked: {counts}; {reported} of {_plural(nodes, 'step')} reported"


def as_github(report: Report, shown: Shown) -> Iterator[str]:
    """Workflow commands, which GitHub shows at the lines of a pull request. Without findings nothing is said."""
    for finding in report.findings:
        place = {
            "file": shown(finding.path),
            "line": str(finding.line),
            "endLine": str(finding.end_line),
            "col": str(finding.column),
        }
        if finding.end_line == finding.line:
            place["endColumn"] = str(finding.end_column)
        place["title"] = f"failpath {finding.code}"
        properties = ",".join(f"{name}={_property(value)}" for name, value in place.items())
        yield f"::{_GITHUB[finding.severity]} {properties}::{_data(finding.message)}"


def as_json(report: Report, shown: Shown) -> Iterator[str]:
    """One JSON object. New fields may be added; those that are there stay."""
    content = {
        "version": 1,
        "files": report.files,
        "errors": report.count("error"),
        "warnings": report.count("warning"),
        "notes": report.count("note"),
        "findings": [_object(finding, shown) for finding in report.findings],
        "coverage": [
            {
                "flows": shown(covered.path),
                "flow": covered.flow,
                "reported": list(covered.reported),
                "notReported": list(covered.not_reported),
            }
            for covered in report.coverage
        ],
    }
    yield json.dumps(content, indent=2)


FORMATS: Final[dict[str, Callable[[Report, Shown], Iterator[str]]]] = {
    "text": as_text,
    "json": as_json,
    "github": as_github,
}


def _object(finding: Diagnostic, shown: Shown) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.severity,
        "path": shown(finding.path),
        "line": finding.line,
        "column": finding.column,
        "endLine": finding.end_line,
        "endColumn": finding.end_column,
        "message": finding.message,
        "flow": finding.flow,
        "key": finding.key,
        "suggestion": finding.suggestion,
    }


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
