"""How long a server takes to end after SIGTERM: idle, and while everything that it could wait for never comes.

A sender has sent half a request and stalls. Before a server the database is locked as well while a whole request waits for
it; before a bridge, with a store and without, the server behind takes requests and never answers.
"""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

from harness import QUICK, Row, Sink, Spread, report

BOUND_SECONDS = 2.0
TIMES = 3 if QUICK else 10
BEGIN = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
EVENT = {
    "eventId": "e",
    "flowKey": "checkout",
    "runId": "r",
    "stepKey": "charge-card",
    "status": "success",
    "timestamp": "2026-03-01T12:00:01.000000Z",
}
BODY = json.dumps({"events": [EVENT]}).encode()

Prepare = Callable[[str, Path, ExitStack], None]
"""Gives the server at this URL, with this database, something to wait for."""


def ended(prepare: Prepare, *arguments: str) -> float:
    """Seconds from SIGTERM to the end of a new server."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
        db = Path(folder) / "runs.db"
        kept = () if "--no-store" in arguments else ("--db", str(db))
        command = [sys.executable, "-m", "failpath_otel.cli", "serve", "--port", "0", *kept, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip().rpartition(" ")[2]
            prepare(url, db, held)
            get(f"{url}/api/about")  # it has read what was sent before
            before = time.perf_counter()
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0  # with a timeout it would look only every 50 ms
            return time.perf_counter() - before


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as response:
        answer: bytes = response.read()
    return answer


def sent(url: str, held: ExitStack, body: bytes, of: int) -> None:
    """So much of a request of ``of`` bytes, over a connection that stays open."""
    where = urlsplit(url)
    connection = held.enter_context(socket.create_connection((where.hostname, where.port), timeout=30))
    connection.sendall(BEGIN + b"Content-Length: %d\r\n\r\n" % of + body)


def stalls(url: str, _: Path, held: ExitStack) -> None:
    """A sender that never sends the rest."""
    sent(url, held, b'{"events":', 1000)


def locked(url: str, db: Path, held: ExitStack) -> None:
    """That, and one whose request waits for a database that another process holds."""
    lock = held.enter_context(closing(sqlite3.connect(db, isolation_level=None)))
    lock.execute("BEGIN IMMEDIATE")
    stalls(url, db, held)
    sent(url, held, BODY, len(BODY))


def forwards(url: str, db: Path, held: ExitStack) -> None:
    """That, and one whose request waits for the server behind."""
    stalls(url, db, held)
    sent(url, held, BODY, len(BODY))
    while not json.loads(get(f"{url}/api/intake"))["forward"]["waiting"]:
        time.sleep(0.01)
    time.sleep(0.2)  # from where it waits to where it is sent


def row(what: str, prepare: Prepare, *arguments: str, bound: float | None = BOUND_SECONDS) -> Row:
    taken = [ended(prepare, *arguments) for _ in range(TIMES)]
    shown = f"{Spread.of(taken).show(' s')}, at worst {max(taken):.2f} s"
    return Row(what, shown) if bound is None else Row(what, shown, f"≤ {bound:.0f} s", max(taken) <= bound)


def main() -> None:
    with Sink("--hang") as hung:
        on = ("--forward-to", hung.url)
        rows = [
            row("a server with nothing to wait for", lambda *_: None, bound=None),
            row("a server, a sender stalls", stalls),
            row("a server, a sender stalls, the database is locked", locked),
            row("a bridge with a store, a sender stalls, the server behind hangs", forwards, *on),
            row("a bridge without a store, a sender stalls, the server behind hangs", forwards, "--no-store", *on),
        ]
    report("stop", rows, "uvicorn")


if __name__ == "__main__":
    main()
