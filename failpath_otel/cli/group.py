"""The command and its subcommands, each imported only when it is called: what one needs may be missing for another."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final, NamedTuple

import click

from failpath_otel.cli import INSTALL_HINT
from failpath_otel.errors import ConfigError
from failpath_otel.version import VERSION


class _Place(NamedTuple):
    module: str
    name: str
    extra: str
    summary: str


COMMANDS: Final = {
    "serve": _Place("failpath_otel.cli.serve", "serve", "server", "Take events, store them, show runs."),
    "generate": _Place("failpath_otel.cli.generate", "generate", "cli", "Write a module that makes flows and step keys typed."),
    "check": _Place("failpath_otel.cli.check", "check", "cli", "Hold the keys in Python sources against flows.json."),
    "init": _Place("failpath_otel.cli.init", "init", "cli", "Write a first flows.json."),
    "doctor": _Place("failpath_otel.cli.doctor", "doctor", "cli", "Find out why runs do not show."),
    "demo": _Place("failpath_otel.cli.demo", "demo", "demo", "Run a small shop and see its runs."),
}


class CommandError(click.ClickException):
    """Something that the user can put right: a message instead of a traceback."""

    exit_code = 2


class CleanErrors(click.Group):
    """Subcommands by name. What the user can put right ends with a message and exit code 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all subcommands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand with this name, imported now."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        try:
            command = getattr(import_module(place.module), place.name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] == "failpath_otel":
                raise
            hint = INSTALL_HINT.format(extra=place.extra)
            raise CommandError(f"{cmd_name} needs {error.name}, which is not installed: {hint}") from error
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the subcommand."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise CommandError(str(error)) from error


@click.group(cls=CleanErrors)
@click.version_option(VERSION, prog_name="failpath-otel")
def cli() -> None:
    """See which step of which run succeeded, failed, was skipped, is stuck or never happened."""
