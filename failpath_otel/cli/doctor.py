"""``failpath-otel doctor``."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from failpath_otel.doctor import Diagnosis, Finding, Level, examine

_COLORS: Final[dict[Level, str]] = {"ok": "green", "warning": "yellow", "problem": "red"}
_APP: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*(\.[^\W\d]\w*)*(\(\))?)?")


class _App(click.ParamType[Any]):
    name = "app"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it is, where it is one."""
        if not _APP.fullmatch(value):
            self.fail(f"{value!r} is no module:attribute such as shop.main:app, or shop.main:create_app()", param, ctx)
        return str(value)


@click.command()
@click.option(
    "--app",
    type=_App(),
    metavar="MODULE[:ATTRIBUTE]",
    help="Import this application, in a process of its own, and look at the tracing that it sets up; with () behind it, it is "
    "called. Without it, tracing is looked at as opentelemetry-instrument sets it up here.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 600),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the application may take, and then all destinations together.",
)
def doctor(app: str | None, as_json: bool, timeout: float) -> None:
    """Find out why runs do not show: versions, options, the way to the server, tracing, flows and rules.

    Nothing is stored anywhere, and no secret is printed.

    Exits with 0 where there is no problem (there may be warnings), with 1 where there is one, and with 2 when the command is
    called in a wrong way.
    """
    diagnosis = examine(app, timeout, os.environ, Path.cwd())
    if as_json:
        counts = {level: diagnosis.count(level) for level in _COLORS}
        answer = {"version": 1, "findings": diagnosis.findings, "counts": counts}
        click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))
    else:
        for line in lines_of(diagnosis):
            click.echo(line)
    sys.exit(1 if diagnosis.count("problem") else 0)


def lines_of(diagnosis: Diagnosis) -> Iterator[str]:
    """The findings as text; colours are taken away where nobody sees them."""
    for finding in diagnosis:
        yield from _lines(finding)
    problems, warnings = diagnosis.count("problem"), diagnosis.count("warning")
    yield f"{len(diagnosis.findings)} findings: {problems} problems, {warnings} warnings"


def _lines(finding: Finding) -> Iterator[str]:
    level = click.style(f"{finding.level:<8}", fg=_COLORS[finding.level])
    yield f"{level} {finding.check}: {finding.what}"
    if finding.why:
        yield f"         why: {finding.why}"
    if finding.fix:
        yield f"         fix: {finding.fix}"
