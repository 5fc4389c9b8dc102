"""``failpath-otel serve``."""

from __future__ import annotations

from pathlib import Path

import click

from failpath_otel.cli.forwarding import destination_of, useless_without_store
from failpath_otel.cli.quantity import bytes_of, seconds_of
from failpath_otel.flows import Flows, find_flows_file, load_flows, split_strict
from failpath_otel.rules import SpanRules, find_rules_file, load_rules
from failpath_otel.server.serve import Address
from failpath_otel.server.serve import serve as run_server
from failpath_otel.server.settings import DEFAULT_HOST, DEFAULT_PORT, DEFAULT_STUCK_AFTER_SECONDS, Settings, default_db


@click.command()
@click.option(
    "--host", envvar="FAILPATH_HOST", default=DEFAULT_HOST, show_default=True, show_envvar=True, help="Address to listen on."
)
@click.option(
    "--port",
    envvar="FAILPATH_PORT",
    type=int,
    default=DEFAULT_PORT,
    show_default=True,
    show_envvar=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--grpc-port",
    envvar="FAILPATH_GRPC_PORT",
    type=int,
    show_envvar=True,
    help="Port to take OTLP/gRPC on as well, such as 4317; 0 takes a free one. [default: none]",
)
@click.option(
    "--db",
    envvar="FAILPATH_DB",
    show_envvar=True,
    metavar="PATH|URL",
    help="Where runs are kept: a file, or postgresql://… [default: failpath.db in the nearest .failpath folder, "
    "else in the user's data folder]",
)
@click.option(
    "--flows",
    "flows_file",
    envvar="FAILPATH_FLOWS",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="The flows.json that declares the flows. [default: the nearest .failpath/flows.json, upward from here]",
)
@click.option(
    "--rules",
    "rules_file",
    envvar="FAILPATH_RULES",
    show_envvar=True,
    metavar="PATH",
    help="The spans.json that says which spans of others are steps; false: none. "
    "[default: the nearest .failpath/spans.json, upward from here]",
)
@click.option(
    "--stuck-after",
    envvar="FAILPATH_STUCK_AFTER",
    type=float,
    default=DEFAULT_STUCK_AFTER_SECONDS,
    show_default=True,
    show_envvar=True,
    metavar="SECONDS",
    help="After which a running step counts as stuck, as long as fewer than 20 runs show how long it takes.",
)
@click.option(
    "--retain",
    envvar="FAILPATH_RETAIN",
    show_envvar=True,
    metavar="TIME",
    help="Delete runs of which nothing arrived for so long, such as 12h or 7d. [default: keep them]",
)
@click.option(
    "--max-size",
    envvar="FAILPATH_MAX_SIZE",
    show_envvar=True,
    metavar="SIZE",
    help="Delete the oldest runs when the SQLite database holds more, such as 500MB or 2GB. [default: no bound]",
)
@click.option(
    "--trace-url",
    envvar="FAILPATH_TRACE_URL",
    show_envvar=True,
    metavar="TEMPLATE",
    help="Where a trace can be looked at, for the links of the page: http://localhost:16686/trace/{trace_id}; "
    "{span_id} may stand in it too.",
)
@click.option("--token", envvar="FAILPATH_TOKEN", show_envvar=True, help="What readers must show. Demanded off loopback.")
@click.option(
    "--ingest-key", envvar="FAILPATH_INGEST_KEY", show_envvar=True, help="What senders must show. Demanded off loopback."
)
@click.option(
    "--allow-host",
    "allowed_hosts",
    envvar="FAILPATH_ALLOWED_HOSTS",
    show_envvar=True,
    multiple=True,
    metavar="NAME",
    help="A name beside localhost under which the server is called; may be given several times, or as a list with commas.",
)
@click.option(
    "--forward-to",
    envvar="FAILPATH_FORWARD_TO",
    show_envvar=True,
    metavar="URL",
    help="Send what comes in on to the Failpath API or another server at this URL, and acknowledge it when that has taken it.",
)
@click.option(
    "--forward-key",
    envvar="FAILPATH_PROJECT_KEY",
    show_envvar=True,
    help="The project key to show there. Demanded unless the URL is on this machine.",
)
@click.option(
    "--forward-certificate",
    envvar="FAILPATH_CERTIFICATE",
    show_envvar=True,
    metavar="FILE",
    help="PEM file of the authorities to trust there, in place of all others.",
)
@click.option(
    "--forward-client-certificate",
    envvar="FAILPATH_CLIENT_CERTIFICATE",
    show_envvar=True,
    metavar="FILE",
    help="PEM file of a certificate to show there, where one is demanded; its key may be in it.",
)
@click.option(
    "--forward-client-key",
    envvar="FAILPATH_CLIENT_KEY",
    show_envvar=True,
    metavar="FILE",
    help="PEM file of that certificate's key, without a passphrase.",
)
@click.option(
    "--no-store",
    envvar="FAILPATH_NO_STORE",
    show_envvar=True,
    is_flag=True,
    help="Keep nothing here: only send on.",
)
def serve(
    host: str,
    port: int,
    grpc_port: int | None,
    db: str | None,
    flows_file: Path | None,
    rules_file: str | None,
    stuck_after: float,
    retain: str | None,
    max_size: str | None,
    trace_url: str | None,
    token: str | None,
    ingest_key: str | None,
    allowed_hosts: tuple[str, ...],
    forward_to: str | None,
    forward_key: str | None,
    forward_certificate: str | None,
    forward_client_certificate: str | None,
    forward_client_key: str | None,
    no_store: bool,
) -> None:
    """Take step events and OTLP, store them, and show the runs.

    Listens on loopback, or where --host says. SIGTERM and Ctrl-C end it within two seconds; what was acknowledged is stored.
    """
    here = Path.cwd()
    if no_store:
        useless_without_store(
            {"--db": db, "--flows": flows_file, "--retain": retain, "--max-size": max_size, "--trace-url": trace_url}
        )
    if flows_file is not None:
        # The variable may be set for clients, where it may also say what becomes of unknown keys.
        _, named = split_strict(str(flows_file))
        flows_file = Path(named) if named else None
    path = None if no_store else flows_file or find_flows_file(here)
    settings = Settings(
        db=None if no_store else db or str(default_db(here)),
        flows=load_flows(path) if path is not None else Flows(),
        host=host,
        port=port,
        grpc_port=grpc_port,
        stuck_after_seconds=stuck_after,
        retain_seconds=seconds_of("--retain", retain) if retain else None,
        max_size_bytes=bytes_of("--max-size", max_size) if max_size else None,
        trace_url=trace_url or None,
        rules=_rules(rules_file, here),
        token=token or None,
        ingest_key=ingest_key or None,
        allowed_hosts=tuple(name for listed in allowed_hosts for name in listed.replace(",", " ").split()),
        forward=None
        if not forward_to
        else destination_of(
            forward_to,
            forward_key,
            forward_certificate,
            forward_client_certificate,
            forward_client_key,
        ),
    )
    run_server(settings, lambda address: _announce(address, settings))


def _rules(given: str | None, here: Path) -> SpanRules:
    # The variable may be set for clients, where false means none.
    if given and given.lower() in ("false", "no", "off", "0"):
        return SpanRules()
    path = Path(given) if given else find_rules_file(here)
    return load_rules(path) if path is not None else SpanRules()


def _announce(address: Address, settings: Settings) -> None:
    # The first line is what scripts wait for and read.
    click.echo(f"failpath-otel is listening on {address.url}")
    if address.grpc is not None:
        click.echo(f"OTLP/gRPC is taken on {address.grpc}")
    if settings.forward is not None:
        click.echo(f"events go on to {settings.forward.url}")
    if settings.db is None:
        click.echo("nothing is kept here")
    else:
        click.echo(f"runs are kept in {_without_password(settings.db)}")
        flows = settings.flows
        click.echo(f"{len(flows)} flows declared in {flows.path}" if flows.path else "no flows.json found")
    if settings.rules.path is not None:
        click.echo(f"{len(settings.rules)} span rules in {settings.rules.path}")
    if settings.token is not None:
        click.echo(f"open {address.url}/?token=<token> in a browser, with the token that readers must show")


def _without_password(db: str) -> str:
    scheme, found, rest = db.partition("://")
    if not found or "@" not in rest:
        return db
    login, _, place = rest.rpartition("@")
    return f"{scheme}://{login.partition(':')[0]}@{place}"
