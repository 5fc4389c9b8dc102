"""``failpath-otel generate``."""

from __future__ import annotations

import os
import shlex
import sys
from difflib import unified_diff
from itertools import islice
from pathlib import Path
from typing import Final

import click

from failpath_otel.bindings import MARK, render_module
from failpath_otel.cli.flows_option import declared_flows, flows_option, shown
from failpath_otel.errors import ConfigError
from failpath_otel.flows import DEFAULT_PATH

DEFAULT_OUTPUT: Final = "failpath_flows.py"
_DIFF_LINES: Final = 40


@click.command()
@flows_option
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    help=f"The module to write; - is standard output. [default: {DEFAULT_OUTPUT} beside the folder .failpath]",
)
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where the module is not what would be written.")
def generate(flows_file: str | None, output: str | None, check: bool) -> None:
    """Write a Python module of flows.json, with which type checkers and editors know flows and step keys.

    Exits with 0 when the module is up to date or was written, with 1 when --check finds it out of date, and with 2 when
    something cannot be read or written.
    """
    flows, path = declared_flows(flows_file)
    text = render_module(flows, _source(path))
    if output == "-":
        if check:
            raise ConfigError("--check needs a file to look at, got --output -")
        _to_standard_output(text)
        return
    target = Path(output) if output else _default_output(path)
    present = _present(target)
    # Git may write the ends of lines in the way of the machine; that is no change.
    if present is not None and present.replace("\r\n", "\n") == text:
        click.echo(f"{shown(target)} is up to date")
    elif check:
        again = shlex.join(_again(flows_file, output))
        click.echo(f"{shown(target)} is {'missing' if present is None else 'out of date'}; run: {again}", err=True)
        _show_changes(present or "", text, target)
        sys.exit(1)
    else:
        _refuse_foreign(target, present)
        _write(target, text)
        click.echo(f"{shown(target)} written: {len(flows)} flows, {sum(len(flow.nodes) for flow in flows)} steps")


def _source(path: Path) -> str:
    """The name of flows.json in the header: the same in every checkout."""
    return DEFAULT_PATH.as_posix() if path.absolute().parts[-2:] == DEFAULT_PATH.parts else path.name


def _default_output(path: Path) -> Path:
    folder = path.absolute().parent
    return (folder.parent if folder.name == DEFAULT_PATH.parent.name else folder) / DEFAULT_OUTPUT


def _again(flows_file: str | None, output: str | None) -> list[str]:
    words = ["failpath-otel", "generate"]
    words += ["--flows", flows_file] if flows_file else []
    return words + (["--output", output] if output else [])


def _present(target: Path) -> str | None:
    """What the file holds; ``None`` where there is none."""
    try:
        return target.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{target} cannot be read: {error.strerror or error}") from error


def _refuse_foreign(target: Path, present: str | None) -> None:
    if present and not present.removeprefix("\ufeff").startswith(MARK):
        raise ConfigError(
            f"{target} was not made by this command and is left as it is; remove it, or name another file: --output PATH"
        )


def _write(target: Path, text: str) -> None:
    # Whole or not at all: a service may be importing it at this moment.
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8", newline="\n")
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ConfigError(f"{target} cannot be written: {error.strerror or error}") from error


def _show_changes(present: str, text: str, target: Path) -> None:
    name = shown(target)
    lines = unified_diff(present.splitlines(), text.splitlines(), name, f"{name} (as it should be)", n=1, lineterm="")
    for line in islice(lines, _DIFF_LINES):
        click.echo(line)
    if next(lines, None) is not None:
        click.echo("…")


def _to_standard_output(text: str) -> None:
    # As bytes: the module says UTF-8 whatever the terminal does.
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()
