"""``failpath-otel demo``: the whole, as processes, on real sockets; and the comparison by which it judges itself."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.served import Client, event, until

from failpath_otel.cli import demo
from failpath_otel.cli.shop.customers import checkout_steps
from failpath_otel.cli.story import RunStory, StepStory, differences
from failpath_otel.flows import load_flows

COMMAND = [sys.executable, "-m", "failpath_otel.cli", "demo"]
DONE = RunStory("checkout", "req_1", "success", checkout_steps({"charge-card": StepStory("success", ("error", "success"))}))


def ended_process(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, capture_output=True, text=True, cwd=folder, timeout=100, stdin=subprocess.DEVNULL, check=False
    )


def listens(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, int(port))) == 0


class Staying:
    """A demo that stays, as on a terminal, with its output in a file."""

    def __init__(self, folder: Path) -> None:
        self._output = folder / "output"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen([*COMMAND, "--stay"], stdout=output, stderr=subprocess.STDOUT, cwd=folder)

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def addresses(self) -> list[str]:
        """Where its server and its shop listen."""
        return re.findall(r"^ .* (?:server|shop) \(process \d+\) at (http://[\d.:]+)", self.output, re.MULTILINE)


@pytest.fixture
def staying(tmp_path: Path) -> Iterator[Staying]:
    staying = Staying(tmp_path)
    yield staying
    if staying.process.poll() is None:
        staying.process.kill()
    staying.process.wait()


@pytest.mark.slow
def test_without_a_terminal_it_shows_every_kind_of_run_and_ends_by_itself(tmp_path: Path) -> None:
    ended = ended_process(COMMAND, tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    table = ended.stdout[ended.stdout.index("Runs, as the server's API knows them") :]
    assert "The server knows all 11 runs as they were done" in table
    for shown in ("5 success", "4 success, 1 skipped", "charge-card: CardDeclined", "stuck", "payment-webhook"):
        assert shown in table
    assert "charged at the second attempt" in ended.stdout
    assert ended.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_it_fails_with_a_difference_when_the_server_knows_something_else(tmp_path: Path) -> None:
    """The shop, a process of its own, gives the true reason; here another one is expected of it."""
    program = (
        "import sys, failpath_otel.cli.shop.customers as customers\n"
        "customers.OPTED_OUT = 'it rained'\n"
        "sys.argv[1:] = ['demo']; from failpath_otel.cli import main; main()"
    )
    ended = ended_process([sys.executable, "-c", program], tmp_path)
    assert ended.returncode == 1
    lines = [line for line in ended.stdout.splitlines() if line.startswith("  checkout ")]
    assert len(lines) == 2
    assert all("skip_reason: done it rained, the server knows the customer opted out of e-mail" in line for line in lines)


@pytest.mark.slow
def test_on_a_terminal_it_stays_until_interrupted_and_leaves_no_process(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    controller, terminal = pty.openpty()
    process = subprocess.Popen(COMMAND, stdin=terminal, stdout=terminal, stderr=terminal, cwd=tmp_path)
    os.close(terminal)
    written = b""
    while b"Customers go on coming" not in written:
        written += os.read(controller, 4096)
    while written.split(b"Customers go on coming")[1].count(b"POST ") < 1:
        written += os.read(controller, 4096)
    found = re.findall(rb"at (http://127\.0\.0\.1:\d+)", re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", written))
    addresses = sorted({address.decode() for address in found})
    assert len(addresses) == 2
    assert all(listens(address) for address in addresses)
    process.send_signal(signal.SIGINT)
    try:
        while chunk := os.read(controller, 4096):
            written += chunk
    except OSError:
        pass  # how Linux says that the other side of a terminal is closed
    os.close(controller)
    assert process.wait(timeout=60) == 0
    assert b"Traceback" not in written
    assert not any(listens(address) for address in addresses)


@pytest.mark.slow
def test_killed_demo_leaves_no_orphan(staying: Staying) -> None:
    until(lambda: len(staying.addresses) == 2, 90)
    staying.process.kill()
    until(lambda: not any(listens(address) for address in staying.addresses))


@pytest.mark.slow
def test_termination_ends_the_children_too(staying: Staying) -> None:
    until(lambda: staying.addresses, 90)
    staying.process.terminate()
    assert staying.process.wait(timeout=60) == 128 + signal.SIGTERM
    assert "Traceback" not in staying.output
    assert not any(listens(address) for address in staying.addresses)


@pytest.mark.parametrize("missing", ["httpx", "fastapi", "opentelemetry.instrumentation.fastapi"])
def test_without_its_extra_it_says_how_to_install(missing: str, tmp_path: Path) -> None:
    program = (
        "import sys, importlib.machinery as machinery\n"
        "class Missing:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        if name == {missing!r}: raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)\n"
        "sys.meta_path.insert(0, Missing)\n"
        "sys.argv[1:] = ['demo']; from failpath_otel.cli import main; main()"
    )
    ended = ended_process([sys.executable, "-c", program], tmp_path)
    assert ended.returncode == 2
    assert f"demo needs {missing}, which is not installed: pip install 'failpath-otel[demo]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_child_that_cannot_start_is_an_error_with_what_it_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = ended_process([*COMMAND, "--port", port], tmp_path)
    assert ended.returncode == 1
    assert "The demo failed: server ended with code 2" in ended.stdout
    assert port in ended.stdout.partition("The demo failed")[2]


def test_the_watch_ends_a_process_when_its_parent_is_gone(tmp_path: Path) -> None:
    """Also one that does not heed SIGTERM."""
    program = (
        "import signal, threading; from failpath_otel.cli import parent_watch\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); parent_watch.watch_parent(); "
        "print('held', flush=True); threading.Event().wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        child.stdin.close()
        assert child.wait(timeout=60) == 1


def test_the_watch_leaves_a_server_the_time_that_it_may_take_to_end(tmp_path: Path) -> None:
    """This one waits for a locked database up to its last moment, and still ends by itself."""
    db = tmp_path / "runs.db"
    command = [sys.executable, "-m", "failpath_otel.cli.parent_watch", "serve", "--port", "0", "--db", str(db)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        api = Client(child.stdout.readline().strip().rpartition(" ")[2])
        with closing(sqlite3.connect(db, isolation_level=None)) as lock:
            lock.execute("BEGIN IMMEDIATE")
            sender = api.connect()
            sender.request("POST", "/v1/events", json.dumps({"events": [event()]}), {"Content-Type": "application/json"})
            assert api.get("/api/runs").status == 200
            api.close()
            child.stdin.close()
            assert child.wait(timeout=60) == 0
            sender.close()


def test_shipped_flows_are_those_of_the_repository(repository: Path) -> None:
    assert load_flows(demo.FLOWS_FILE).by_slug == load_flows(repository / ".failpath" / "flows.json").by_slug


def test_equal_stories_have_no_differences() -> None:
    assert differences(DONE, replace(DONE, steps=dict(DONE.steps))) == []


@pytest.mark.parametrize(
    ("known", "line"),
    [
        (None, "checkout req_1: done, but the server does not know this run"),
        (replace(DONE, status="incomplete"), "checkout req_1: status: done success, the server knows incomplete"),
        (replace(DONE, stuck=True), "checkout req_1: stuck: done false, the server knows true"),
        (
            replace(DONE, steps={**DONE.steps, "charge-card": StepStory("success", ("success",))}),
            "checkout req_1: charge-card: attempts: done error, success, the server knows success",
        ),
        (
            replace(DONE, steps={key: step for key, step in DONE.steps.items() if key != "send-receipt-email"}),
            (
                "checkout req_1: order of steps: "
                "done validate-cart, charge-card, reserve-stock, create-order, send-receipt-email, "
                "the server knows validate-cart, charge-card, reserve-stock, create-order"
            ),
        ),
    ],
)
def test_each_difference_is_named(known: RunStory | None, line: str) -> None:
    assert differences(DONE, known) == [line]


@pytest.mark.parametrize("part", ["status", "error", "skip_reason", "missing_reason"])
def test_every_part_of_a_step_is_compared(part: str) -> None:
    other: dict[str, Any] = {part: "other"}
    steps = {**DONE.steps, "create-order": replace(DONE.steps["create-order"], **other)}
    assert len(differences(DONE, replace(DONE, steps=steps))) == 1


def test_run_that_was_never_done_is_a_difference() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"runs": [{"flowKey": "checkout", "runId": "req_ghost"}]})

    with (
        httpx.Client(transport=httpx.MockTransport(answer), base_url="http://server") as api,
        pytest.raises(demo.DisagreementError, match="req_ghost: the server lists this run, which was not done"),
    ):
        demo.agree(api, [], timeout_seconds=0)
