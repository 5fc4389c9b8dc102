"""Engines that run no step again that they have done: what such a step told was told before the engine wrote it down."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.http_sink import HttpSink
from support.postgres import postgres, postgres_folder
from support.processes import SECONDS, arrived, once, settings

pytestmark = pytest.mark.slow

STEPS = """
import os, signal, sys
from pathlib import Path
from failpath_otel import FailpathClient

failpath = FailpathClient(flows=False)


def charge_card(order):
    run = failpath.run("checkout", order, delivery="await")
    with run.step("charge-card"):
        with Path("charged").open("a") as file:
            file.write("once")


def ship_order(order):
    # At once when the engine has written down that the card is charged.
    if not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    failpath.run("checkout", order, delivery="await").step("ship-order", lambda: None)


# What comes next finds the delivery at rest: what is recorded first of all may leave at once.
failpath.run("boot").step("begin", lambda: None)
failpath.flush()
"""

DBOS = """
from dbos import DBOS, SetWorkflowID
from steps import charge_card, os, ship_order, sys

DBOS(config={"name": "shop", "system_database_url": os.environ["DATABASE"]})
charge, ship = DBOS.step()(charge_card), DBOS.step()(ship_order)


@DBOS.workflow()
def checkout(order):
    charge(order)
    ship(order)


DBOS.launch()
if sys.argv[1] == "begin":
    with SetWorkflowID("order-7"):
        checkout("order-7")
else:
    DBOS.retrieve_workflow("order-7").get_result()
DBOS.destroy()
"""

LANGGRAPH = """
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.func import entrypoint, task
from steps import charge_card, ship_order, sys
import sqlite3, time


def ship_when_written(order):
    # LangGraph writes down what a task returned beside the next one.
    with sqlite3.connect("checkpoints.sqlite") as database:
        while not database.execute("SELECT count(*) FROM writes").fetchone()[0]:
            time.sleep(0.01)
    ship_order(order)


charge, ship = task(charge_card), task(ship_when_written)

with SqliteSaver.from_conn_string("checkpoints.sqlite") as saver:

    @entrypoint(checkpointer=saver)
    def checkout(order):
        charge(order).result()
        ship(order).result()

    config = {"configurable": {"thread_id": "order-7"}}
    checkout.invoke("order-7" if sys.argv[1] == "begin" else None, config, durability="sync")
"""


@pytest.fixture
def database(needs: Callable[..., None]) -> Iterator[str]:
    needs("dbos")
    folder = postgres_folder()
    if folder is None:
        pytest.skip("needs PostgreSQL")
    with postgres(folder) as url:
        yield url.replace("+psycopg", "")


def run(folder: Path, source: str, sink: HttpSink, how: str, **env: str) -> subprocess.CompletedProcess[str]:
    (folder / "steps.py").write_text(STEPS)
    (folder / "service.py").write_text(source)
    command = [sys.executable, "service.py", how]
    return subprocess.run(
        command, cwd=folder, env=settings(sink, env), capture_output=True, text=True, timeout=SECONDS, check=False
    )


def held(folder: Path, source: str, sink: HttpSink, **env: str) -> None:
    """The engine is killed after the first step, and goes on with the second in another process."""
    killed = run(folder, source, sink, "begin", **env)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    went_on = run(folder, source, sink, "go on", **env)
    assert went_on.returncode == 0, went_on.stderr
    assert (folder / "charged").read_text() == "once", "the engine ran the step again: nothing is shown"
    assert arrived(sink)["order-7"] == once(
        *((key, status) for key in ("charge-card", "ship-order") for status in ("running", "success"))
    )


def test_what_a_step_of_dbos_told_is_told_when_dbos_does_not_run_it_again(
    database: str, sink: HttpSink, tmp_path: Path
) -> None:
    held(tmp_path, DBOS, sink, DATABASE=database)


def test_what_a_task_of_langgraph_told_is_told_when_langgraph_does_not_run_it_again(
    sink: HttpSink, tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs("langgraph.checkpoint.sqlite")
    held(tmp_path, LANGGRAPH, sink)
