"""Under uWSGI, which forks its workers past Python, each step comes once, whatever was recorded before the fork."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.http_sink import HttpSink
from support.ports import free_port
from support.processes import BIN, SECONDS, arrived, ask, fill, once, settings
from support.served import until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]

SHOP = """
import os
import threading
import time

import uwsgi
from urllib.parse import unquote

from failpath_otel import FailpathClient


def busy(event):
    # Whoever sends the steps of the import wants the interpreter's lock all that time, a fork's among it.
    ends = time.monotonic() + (0.3 if event.step_key == "import" else 0)
    while time.monotonic() < ends:
        pass
    return event


failpath = FailpathClient(flows=False, mask=busy)
failpath.run("boot").step("import", lambda: None)


def say(run_id, key):
    failpath.run("checkout", run_id).step(key, lambda: None)


def wsgi(environ, start_response):
    run_id = unquote(environ["QUERY_STRING"])
    say(run_id, "served")
    if run_id == "hangs":
        time.sleep(600)
    if run_id == "to the mule":
        uwsgi.mule_msg(run_id.encode())
    if run_id == "to the spooler":
        uwsgi.spool({b"run": run_id.encode()})
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]


def spool(told):
    say(told[b"run"].decode(), "spooled")
    return uwsgi.SPOOL_OK


uwsgi.spooler = spool
uwsgi.mule_msg_hook = lambda message: say(message.decode(), "by the mule")

if os.environ.get("AT_IMPORT") == "a thread of the application":

    def work():
        while not any(worker["pid"] for worker in uwsgi.workers()):
            time.sleep(0.01)
        say("own", "in the first process")

    threading.Thread(target=work, daemon=True).start()
if os.environ.get("AT_IMPORT") == "flush":
    failpath.flush()
"""

UWSGI = BIN / "uwsgi"
HERE = ".venv-neighbours" in sys.prefix
MASTER = ["--master", "-p", "3"]
MODES = {
    "preloaded": MASTER,
    "preloaded, more workers": ["--master", "-p", "8"],
    "preloaded, threads": [*MASTER, "--threads", "3"],
    "preloaded, fork hooks": [*MASTER, "--py-call-uwsgi-fork-hooks"],
    "preloaded, without exit handlers": [*MASTER, "--skip-atexit-teardown"],
    "without a master": ["-p", "3"],
    "lazy": [*MASTER, "--lazy-apps"],
    "lazy, threads": [*MASTER, "--lazy-apps", "--threads", "3"],
}
SERVED = once(("served", "running"), ("served", "success"))
IMPORT = once(("import", "running"), ("import", "success"))


@pytest.fixture(autouse=True)
def is_there() -> None:
    """uWSGI is a program; a module of that name is there in its own processes alone."""
    if not UWSGI.exists():
        (pytest.fail if HERE and os.environ.get("CI") else pytest.skip)("needs uWSGI, which PyPI has as source: a C compiler")


@contextmanager
def uwsgi(folder: Path, env: dict[str, str], *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes], Path]]:
    """uWSGI with the shop: its address, process and log. It is told to end in good order, with the block, and it ends."""
    (folder / "shop.py").write_text(SHOP)
    (folder / "spool").mkdir()
    url, log = f"127.0.0.1:{free_port()}", folder / "uwsgi.log"
    # By default SIGTERM has a master start again; this is what uWSGI's documentation has for an end in good order.
    ends = ["--hook-master-start", "unix_signal:15 gracefully_kill_them_all"] if "--master" in options else []
    command = [str(UWSGI), "--http-socket", url, "--module", "shop:wsgi", "--need-app", *ends, *options]
    with log.open("wb") as said:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=said, stderr=said, start_new_session=True)
    try:
        yield f"http://{url}", process, log
        if "--master" in options:
            process.send_signal(signal.SIGTERM)
        else:  # nobody tells the others; SIGTERM would end one that is at a request at once
            os.killpg(process.pid, signal.SIGHUP)
        process.wait(SECONDS)
        until(lambda: not living(process.pid), SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(SECONDS)


def living(group: int) -> list[str]:
    """The processes of a group that have not ended."""
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.split()[0] == str(group) and "Z" not in line.split()[1]]


def told(sink: HttpSink) -> tuple[dict[str, Counter[tuple[str, str]]], list[Counter[tuple[str, str]]]]:
    """What came of the runs of requests, by run, and of those of imports."""
    boots = {event["runId"] for event in sink.events if event["flowKey"] == "boot"}
    found = arrived(sink)
    return {run: found[run] for run in found if run not in boots}, [found[run] for run in boots]


@pytest.mark.parametrize("mode", MODES)
def test_each_step_comes_once_and_the_last_ones_survive_the_end_of_the_workers(
    mode: str, sink: HttpSink, tmp_path: Path
) -> None:
    options = MODES[mode]
    workers = int(options[options.index("-p") + 1])
    with uwsgi(tmp_path, settings(sink), *options) as (url, _, log):
        served = fill(url, workers)
    requests, boots = told(sink)
    assert {run: requests.get(run) for run in served} == dict.fromkeys(served, SERVED)
    assert boots == [IMPORT] * (workers if "lazy" in mode else 1)
    assert not [word for word in ("Traceback", "failpath_otel") if word in log.read_text()], log.read_text()


def test_what_the_first_process_recorded_is_sent_as_its_first_worker_begins(sink: HttpSink, tmp_path: Path) -> None:
    """Also where nobody asks that worker for anything."""
    with uwsgi(tmp_path, settings(sink), *MASTER):
        sink.wait_for(lambda sink: len(sink.stored) == 2, SECONDS)
    assert told(sink) == ({}, [IMPORT])


@pytest.mark.parametrize("at_import", ["flush", "a thread of the application"])
def test_what_the_first_process_sends_itself_comes_once_too(at_import: str, sink: HttpSink, tmp_path: Path) -> None:
    # A thread of the application in the first process is safe with these hooks alone.
    options = [*MASTER, *(["--py-call-uwsgi-fork-hooks"] if "thread" in at_import else [])]
    with uwsgi(tmp_path, settings(sink, {"AT_IMPORT": at_import}), *options) as (url, _, _):
        fill(url, 3)
        if "thread" in at_import:
            sink.wait_for(lambda sink: "own" in arrived(sink), SECONDS)
    requests, boots = told(sink)
    assert boots == [IMPORT]
    if "thread" in at_import:
        assert requests["own"] == once(("in the first process", "running"), ("in the first process", "success"))


def test_after_a_reload_the_new_first_process_and_its_workers_report_once(sink: HttpSink, tmp_path: Path) -> None:
    with uwsgi(tmp_path, settings(sink), *MASTER) as (url, process, log):
        served = fill(url, 3)
        before = set(served.values())
        process.send_signal(signal.SIGHUP)
        until(lambda: "gracefully (RE)spawned uWSGI master" in log.read_text(errors="replace"), SECONDS)
        until(lambda: ask(url, "again") not in {None, *before}, SECONDS)
        until(lambda: len(re.findall("spawned uWSGI worker 3", log.read_text(errors="replace"))) == 2, SECONDS)
        sink.wait_for(lambda sink: len(told(sink)[1]) == 2, SECONDS)
    requests, boots = told(sink)
    assert boots == [IMPORT] * 2
    assert {run: requests.get(run) for run in served} == dict.fromkeys(served, SERVED)


def test_a_worker_that_is_killed_for_taking_too_long_leaves_the_others_and_its_successor_at_work(
    sink: HttpSink, tmp_path: Path
) -> None:
    with uwsgi(tmp_path, settings(sink), "--master", "-p", "1", "--harakiri", "3") as (url, _, log):
        until(lambda: ask(url, "before"), SECONDS)
        assert ask(url, "hangs") is None
        sink.wait_for(lambda sink: {"before", "hangs"} <= set(arrived(sink)), SECONDS)
        until(lambda: ask(url, "after"), SECONDS)
    assert "HARAKIRI" in log.read_text(errors="replace")
    requests, boots = told(sink)
    assert boots == [IMPORT], "the successor sent what the first process had recorded once more"
    assert {run: requests[run] for run in ("before", "hangs", "after")} == dict.fromkeys(("before", "hangs", "after"), SERVED)


def test_mules_and_spoolers_report_their_own_steps(sink: HttpSink, tmp_path: Path) -> None:
    with uwsgi(tmp_path, settings(sink), *MASTER, "--mule", "--spooler", "spool") as (url, _, _):
        for run_id in ("to the mule", "to the spooler"):
            until(lambda run_id=run_id: ask(url, run_id.replace(" ", "%20")), SECONDS)  # type: ignore[misc]
        sink.wait_for(lambda sink: {"by the mule", "spooled"} <= {event["stepKey"] for event in sink.events}, SECONDS)
    requests, boots = told(sink)
    assert boots == [IMPORT]
    for key in ("by the mule", "spooled"):
        counts = sum(requests.values(), Counter())
        assert counts[key, "running"] == counts[key, "success"] == 1
