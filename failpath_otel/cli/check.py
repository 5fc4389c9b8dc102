"""``failpath-otel check``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from failpath_otel.checking import Report, Severities, check_tree, python_files
from failpath_otel.checking.output import FORMATS
from failpath_otel.cli.flows_option import declared_flows, flows_option, shown
from failpath_otel.errors import ConfigError
from failpath_otel.flows import DEFAULT_PATH, find_flows_file, load_flows, split_strict


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@flows_option
@click.option(
    "--format",
    "output_format",
    type=click.Choice(list(FORMATS)),
    default="text",
    show_default=True,
    help="github: annotations at the lines of a pull request.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Files and folders to pass over, as in .gitignore; may be given several times. Hidden folders, node_modules and "
    "virtual environments are passed over anyway.",
)
@click.option(
    "--coverage",
    type=click.Choice(["off", "warning", "error"]),
    default="warning",
    show_default=True,
    help="What a declared step is that no code reports.",
)
@click.option(
    "--unresolved",
    type=click.Choice(["off", "note", "error"]),
    default="note",
    show_default=True,
    help="What a key is that is known only when the code runs.",
)
def check(
    paths: tuple[Path, ...],
    flows_file: str | None,
    output_format: str,
    exclude: tuple[str, ...],
    coverage: str,
    unresolved: str,
) -> None:
    """Hold the flow and step keys in Python sources against flows.json. Without PATHS: all below the working directory.

    Each file goes by the nearest .failpath/flows.json above it. Nothing is imported or run. A line with the comment
    "failpath: ignore" is left out.

    Exits with 0 when there is no error, with 1 when there is one, and with 2 when something cannot be read.
    """
    files = python_files(paths or (Path(),), exclude)
    if not files:
        places = ", ".join(map(str, paths)) or str(Path.cwd())
        raise ConfigError(f"there are no Python files in {places}, so nothing was checked")
    # Of the variable that clients read, only a path says where to look.
    named = bool(flows_file and split_strict(flows_file)[1])
    groups = {declared_flows(flows_file)[1]: files} if named else _by_nearest_flows(files)
    severities = Severities(
        not_reported=None if coverage == "off" else "error" if coverage == "error" else "warning",
        unresolved=None if unresolved == "off" else "error" if unresolved == "error" else "note",
    )
    report = Report((), 0, ())
    for path, group in groups.items():
        report = report.with_(check_tree(group, load_flows(path), severities))
    for line in FORMATS[output_format](report, shown):
        click.echo(line)
    if any(finding.code == "unreadable" for finding in report.findings):
        sys.exit(2)
    sys.exit(1 if report.count("error") else 0)


def _by_nearest_flows(files: list[Path]) -> dict[Path, list[Path]]:
    """The files by the flows.json that is nearest above them: a repository may hold several services."""
    nearest: dict[Path, Path | None] = {}
    groups: dict[Path, list[Path]] = {}
    for file in files:
        folder = file.absolute().parent
        if folder not in nearest:
            nearest[folder] = find_flows_file(folder)
        path = nearest[folder]
        if path is None:
            raise ConfigError(f"there is no {DEFAULT_PATH} from {folder} up; name the file: --flows PATH")
        groups.setdefault(path, []).append(file)
    return groups
