"""``failpath-otel init``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from failpath_otel.checking import flows_in, python_files
from failpath_otel.errors import ConfigError
from failpath_otel.flows import DEFAULT_PATH, Flow, Node, find_flows_file, load_flows
from failpath_otel.rules.file import DEFAULT_PATH as RULES_PATH
from failpath_otel.starting import EXAMPLE, as_document, flows_of_server, rules_for, write_new

_NEXT = (
    "failpath-otel serve",
    "FAILPATH_DEV_ENDPOINT=http://127.0.0.1:4600 opentelemetry-instrument python app.py",
    "failpath-otel doctor",
)


@click.command()
@click.option(
    "--from-code",
    "sources",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Take the flows and steps that the Python sources there report; may be given several times. Nothing is run.",
)
@click.option("--from-server", metavar="URL", help="Take the flows and steps that the server at this address knows.")
@click.option(
    "--rules",
    is_flag=True,
    help="Write a .failpath/spans.json too: a span rule for each step, to put right by hand.",
)
@click.option(
    "--token", envvar="FAILPATH_TOKEN", show_envvar=True, metavar="TOKEN", help="What the server wants readers to show."
)
def init(sources: tuple[Path, ...], from_server: str | None, token: str | None, rules: bool) -> None:
    """Write a first .failpath/flows.json here: an example, or what code or a server tells.

    With --rules alone, and a flows.json that is there, rules are written for the steps of that one. A file that is there
    already is never touched. Exits with 0 when the files were written, and with 2, and none of them written, when one is there
    or cannot be written.
    """
    if sources and from_server:
        raise ConfigError("--from-code and --from-server each give the flows; give one of them")
    above = find_flows_file(Path.cwd())
    given = bool(sources or from_server)
    keeps = rules and not given and DEFAULT_PATH.is_file()
    if sources:
        flows = _from_code(sources)
    elif from_server:
        flows = _from_server(from_server, token)
    else:
        flows = list(load_flows(DEFAULT_PATH) if keeps else EXAMPLE)
    files = {} if keeps else {DEFAULT_PATH: as_document(flows)}
    steps = sum(len(flow.nodes) for flow in flows)
    if rules:
        files[RULES_PATH] = rules_for(flows)
    write_new(files)
    if not keeps:
        example = "" if given else ": an example; put your own flow in"
        click.echo(f"{DEFAULT_PATH.as_posix()} written: {len(flows)} flows, {steps} steps{example}")
    if rules:
        click.echo(f"{RULES_PATH.as_posix()} written: {steps} rules; put the names of your spans in")
    if above is not None and not keeps:
        click.echo(f"From here on it is the one that counts, and {above} no longer is.")
    click.echo("\nNext, each in a terminal of its own:\n")
    for line in _NEXT:
        click.echo(f"  {line}")


def _from_code(sources: Iterable[Path]) -> list[Flow]:
    paths = list(sources)
    found = flows_in(python_files(paths))
    for path in found.unread:
        click.echo(f"{path} cannot be read or parsed and is passed over", err=True)
    if found.unresolved:
        click.echo(f"{found.unresolved} keys are known only when the code runs, and are not written", err=True)
    if found.without_flow:
        keys = ", ".join(found.without_flow)
        click.echo(f"of which flow these steps are is not known, and they are not written: {keys}", err=True)
    if not found.steps:
        places = ", ".join(map(str, paths))
        raise ConfigError(f"the code in {places} names no flow; without --from-code an example is written")
    return [Flow(slug, slug, tuple(Node(key, key) for key in keys)) for slug, keys in found.steps.items()]


def _from_server(url: str, token: str | None) -> list[Flow]:
    flows = flows_of_server(url, token)
    if not flows:
        raise ConfigError(f"the server at {url} knows no flow yet; let the service run once, or write an example by init alone")
    return flows
