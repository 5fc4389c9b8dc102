"""``failpath-otel demo``: a server, a shop that reports to it, customers, and what the server then knows."""

from __future__ import annotations

import os
import random
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import click
import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from failpath_otel.cli.child import Child, ChildError
from failpath_otel.cli.shop.customers import Customers, SurpriseError, Visit, interrupted_checkout
from failpath_otel.cli.story import RunStory, differences, known_story

# The shop's process needs these. Asked for here, so that the command says what is missing before it starts anything.
for _name in ("opentelemetry.instrumentation.fastapi", "opentelemetry.instrumentation.httpx"):
    if find_spec(_name) is None:
        raise ModuleNotFoundError(f"No module named {_name!r}", name=_name)

FLOWS_FILE: Final = Path(__file__).parent / "shop" / "flows.json"
STUCK_AFTER_SECONDS: Final = 5
_START_SECONDS: Final = 30.0
_AGREE_SECONDS: Final = 20.0
_TRICKLE_SECONDS: Final = 2.0
_PLAIN_WIDTH: Final = 120
_COLOURS: Final = {"success": "green", "error": "red", "running": "blue", "stuck": "dark_orange", "incomplete": "yellow"}


class DisagreementError(Exception):
    """The server knows something else than what was done; each argument is one difference."""


@click.command()
@click.option("--port", type=int, default=0, show_default="a free one", help="Port of the server.")
@click.option("--stay/--no-stay", default=None, help="Go on until Ctrl-C.  [default: on a terminal]")
def demo(port: int, stay: bool | None) -> None:
    """Run a small shop and see its runs.

    Starts the server and a shop as processes of their own, visits the shop as its customers would, kills a worker of it, and
    compares what the server then knows with what was done: exit code 1 where they differ.
    """
    terminal = sys.stdout.isatty()
    console = Console(highlight=False, width=None if terminal else _PLAIN_WIDTH)
    signal.signal(signal.SIGTERM, _leave)
    try:
        with tempfile.TemporaryDirectory(prefix="failpath-demo-") as folder:
            _Demo(console, Path(folder), port).run(stay=terminal if stay is None else stay)
    except DisagreementError as error:
        console.print("The server knows something else than what was done:", style="bold red")
        for line in error.args:
            console.print(f"  {line}", markup=False, soft_wrap=True)
        sys.exit(1)
    except (ChildError, SurpriseError, httpx.HTTPError) as error:
        console.print(f"The demo failed: {error}", style="bold red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("stopped")
        sys.exit(130)


class _Demo:
    def __init__(self, console: Console, folder: Path, port: int) -> None:
        self._console = console
        self._folder = folder
        self._port = port
        self._began = time.monotonic()

    def run(self, *, stay: bool) -> None:
        doomed = f"req_{secrets.token_hex(4)}"
        with (
            self._server() as url,
            self._child("worker", "failpath_otel.cli.shop.worker", [doomed], url) as worker,
            self._child("shop", "failpath_otel.cli.shop", [], url) as shop,
        ):
            worker.line("the worker is reserving stock", _START_SECONDS)
            worker.kill()
            self._say(f"a worker (process {worker.pid}) killed while it reserved stock for {doomed}", "stuck")
            address = shop.line("the shop is listening on ", _START_SECONDS)
            self._say(f"a shop (process {shop.pid}) at {address}, with OpenTelemetry's own instrumentation")
            done = [interrupted_checkout(doomed)]
            with httpx.Client(base_url=address, timeout=30, trust_env=False) as client:
                customers = Customers(client)
                done += [visit.story for visit in self._visits(customers)]
                self._say("asking the server what it knows, once the dead worker's step counts as stuck")
                with httpx.Client(base_url=url, timeout=30, trust_env=False) as api:
                    with self._console.status("waiting"):
                        agree(api, done, _AGREE_SECONDS)
                    self._console.print(_table(api))
                self._console.print(f"The server knows all {len(done)} runs as they were done: each step, attempt and reason.")
                if stay:
                    self._console.print(f"See them at [bold]{url}[/bold]")
                    self._trickle(customers)
                else:
                    self._console.print(f"They were at {url}, where the demo stays on a terminal, or with --stay.")

    @contextmanager
    def _server(self) -> Generator[str, None, None]:
        port, db = str(self._port), str(self._folder / "demo.db")
        options = ["--host", "127.0.0.1", "--port", port, "--db", db, "--flows", str(FLOWS_FILE)]
        arguments = ["serve", *options, "--stuck-after", str(STUCK_AFTER_SECONDS)]
        with self._child("server", "failpath_otel.cli.parent_watch", arguments) as server:
            url = server.line("failpath-otel is listening on ", _START_SECONDS)
            self._say(f"a server (process {server.pid}) at {url}")
            yield url

    def _child(self, name: str, module: str, arguments: Sequence[str], url: str | None = None) -> Child:
        return Child(name, module, arguments, _environment(url), self._folder)

    def _visits(self, customers: Customers) -> Iterator[Visit]:
        kinds = (
            customers.buys,
            customers.buys,
            customers.is_declined,
            customers.wants_no_receipt,
            customers.meets_a_busy_provider,
            customers.has_paid,
            customers.buys,
            customers.is_declined,
            customers.wants_no_receipt,
            customers.buys,
        )
        for kind in kinds:
            yield self._told(kind())

    def _trickle(self, customers: Customers) -> None:
        self._console.print("Customers go on coming. Ctrl-C ends it.", style="dim")
        try:
            while True:
                time.sleep(_TRICKLE_SECONDS)
                self._told(random.choice(customers.kinds)())  # noqa: S311 - which customer comes next is no secret
        except KeyboardInterrupt:
            self._console.print("closing the shop and the server")

    def _told(self, visit: Visit) -> Visit:
        self._say(f"{visit.request:<22} {visit.answer:<21} {visit.story.run_id:<14} {visit.note}", visit.story.status)
        return visit

    def _say(self, text: str, status: str = "") -> None:
        seconds = Text(f"{time.monotonic() - self._began:5.1f} s  ", style="dim")
        self._console.print(seconds + Text(text, style=_COLOURS.get(status, "") if status != "success" else ""))


def agree(api: httpx.Client, done: Sequence[RunStory], timeout_seconds: float) -> None:
    """Waits until the server knows each run as it was done, and no other run.

    Raises:
        DisagreementError: They still differ when the time is over.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        found = [line for story in done for line in differences(story, _ask(api, story))]
        if not found:
            expected = {(story.flow_key, story.run_id) for story in done}
            listed = {(run["flowKey"], run["runId"]) for run in _runs(api)}
            found = [f"{flow} {run_id}: the server lists this run, which was not done" for flow, run_id in listed - expected]
            found += [f"{flow} {run_id}: done, but not in the server's list" for flow, run_id in expected - listed]
        if not found:
            return
        if time.monotonic() > deadline:
            raise DisagreementError(*found)
        time.sleep(0.2)


def _ask(api: httpx.Client, story: RunStory) -> RunStory | None:
    answer = api.get("/api/run", params={"flow": story.flow_key, "run_id": story.run_id})
    return None if answer.status_code == 404 else known_story(answer.raise_for_status().json())


def _runs(api: httpx.Client) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = api.get("/api/runs", params={"limit": 200}).raise_for_status().json()["runs"]
    return runs


def _table(api: httpx.Client) -> Table:
    table = Table(title="Runs, as the server's API knows them", title_justify="left", title_style="bold")
    for heading in ("Flow", "Run", "Status", "Steps", "First error"):
        table.add_column(heading, overflow="fold")
    table.add_column("Duration", justify="right")
    for run in _runs(api):
        status = "stuck" if run["stuck"] else run["status"]
        steps = ", ".join(f"{count} {name}" for name, count in run["steps"].items() if count)
        error = run["firstError"]
        shown = f"{error['stepKey']}: {error['name']}" if error else ""
        duration = "" if run["durationMs"] is None else f"{run['durationMs']:.0f} ms"
        cells = [run["flowKey"], run["runId"], Text(status, style=_COLOURS.get(status, "")), steps, shown, duration]
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))
    return table


def _environment(url: str | None = None) -> Mapping[str, str]:
    """This environment, without what would make the demo's processes behave otherwise; with the server's address."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("FAILPATH_", "OTEL_"))}
    environ |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "PYTHONUNBUFFERED": "1"}
    if url is not None:
        environ |= {"FAILPATH_DEV_ENDPOINT": url, "FAILPATH_FLOWS": str(FLOWS_FILE), "OTEL_EXPORTER_OTLP_ENDPOINT": url}
    return environ


def _leave(signum: int, _frame: object) -> None:
    sys.exit(128 + signum)
