"""The command line: arguments and printing only. Imports without the extra that it needs, to say so."""

from __future__ import annotations

import sys

INSTALL_HINT = "pip install 'failpath-otel[{extra}]'"
WITHOUT_SERVER = ("generate", "check", "doctor", "init")


def main() -> None:
    """The command ``failpath-otel``."""
    try:
        from failpath_otel.cli.group import cli
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "failpath_otel":
            raise
        # Named by the command asked for: a service's own machine needs no server to check its keys.
        hint = INSTALL_HINT.format(extra="cli" if sys.argv[1:2] in ([name] for name in WITHOUT_SERVER) else "server")
        print(f"Error: failpath-otel needs {error.name}, which is not installed: {hint}", file=sys.stderr)
        sys.exit(2)
    cli(prog_name="failpath-otel")
