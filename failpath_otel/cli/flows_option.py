"""``--flows`` of the commands that read flows.json, by the same rules as everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from failpath_otel.errors import ConfigError
from failpath_otel.flows import DEFAULT_PATH, Flows, find_flows_file, load_flows, split_strict

F = TypeVar("F", bound=Callable[..., Any])


def flows_option(command: F) -> F:
    """Adds ``--flows`` to a command, as the argument ``flows_file``."""
    return click.option(
        "--flows",
        "flows_file",
        envvar="FAILPATH_FLOWS",
        show_envvar=True,
        metavar="PATH",
        help="The flows.json to go by. [default: the nearest .failpath/flows.json, upward from here]",
    )(command)


def declared_flows(given: str | None) -> tuple[Flows, Path]:
    """The flows of the file that was named or found, and its path.

    Raises:
        ConfigError: There is none, or it cannot be used.
    """
    # The variable may be set for clients, where it may also say what becomes of unknown keys.
    named = split_strict(given)[1] if given else ""
    path = Path(named) if named else find_flows_file(Path.cwd())
    if path is None:
        raise ConfigError(f"there is no {DEFAULT_PATH} from {Path.cwd()} up; name the file: --flows PATH")
    return load_flows(path), path


def shown(path: Path) -> str:
    """A path as the user would type it: from the working directory where it lies below, with ``/``."""
    try:
        return path.absolute().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)
