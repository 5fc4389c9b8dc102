"""gevent in place of threads, put there before or after ours: each step comes once and nothing is held up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.http_sink import HttpSink, hang
from support.processes import arrived, once, script, settings

PATCH = "from gevent import monkey; monkey.patch_all()\n"
MAKE = """
from failpath_otel import FailpathClient
failpath = FailpathClient(flows=False)
"""
USE = """
failpath.run("checkout", "before").step("s", lambda: None)
"""
GREENLETS = """
import os, time, gevent

longest, beats = 0.0, 0
def heart():
    global longest, beats
    while True:
        before = time.monotonic()
        gevent.sleep(0.01)
        longest = max(longest, time.monotonic() - before)
        beats += 1

def work(number):
    with failpath.run("checkout", f"g{number}") as run:
        with run.step("outer"):
            gevent.sleep(0.02)
            failpath.step("inner")(lambda: gevent.sleep(0.01))()

beat = gevent.spawn(heart)
gevent.joinall([gevent.spawn(work, number) for number in range(50)], raise_error=True)
assert failpath.flush(5000), failpath.stats()
seen = beats
while beats < seen + 50:  # the delivery waits for more meanwhile, and must not hold up the others
    gevent.sleep(0.01)
beat.kill()
print(longest)
failpath.run("checkout", "last").step("s", lambda: None)
"""
FORK = """
if (child := os.fork()) == 0:
    failpath.run("checkout", "child").step("s", lambda: None)
    raise SystemExit
os.waitpid(child, 0)
"""
S = once(("s", "running"), ("s", "success"))
WHOLE = once(*((key, status) for key in ("outer", "inner") for status in ("running", "success")))


@pytest.mark.parametrize(
    "parts",
    [(PATCH, MAKE, USE), (MAKE, PATCH, USE), (PATCH, MAKE, "")],
    ids=["patched first", "patched after the client was made", "first used in greenlets"],
)
def test_greenlets_report_each_step_once_and_the_delivery_holds_none_up(
    parts: tuple[str, ...], sink: HttpSink, tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs("gevent")
    env = settings(sink, {"PYTHONWARNINGS": "ignore"})
    done = script(tmp_path, "".join(parts) + GREENLETS + FORK, env)
    assert done.stderr == ""
    # The delivery waits for 5 s at a time. A machine that is busy holds a process up as well, but not for so long.
    assert float(done.stdout.split()[0]) < 4, "a greenlet waited for the delivery"
    expected = {f"g{number}": WHOLE for number in range(50)}
    expected |= dict.fromkeys(("last", "child"), S) | ({"before": S} if USE in parts else {})
    assert arrived(sink) == expected


TIME_LIMIT = """
import gevent

class TooSlow(Exception):
    pass

def step():
    with failpath.run("checkout", "1").step("s"):
        pass

try:
    with gevent.Timeout(0.2, TooSlow("by the application's own words")):
        step()
except TooSlow as error:
    print("timeout:", error)

def work():
    try:
        step()
    except TooSlow as error:
        print("kill:", error)

failpath = FailpathClient(flows=False)  # which does not know yet that the destination fails
greenlet = gevent.spawn(work)
gevent.sleep(0.2)
greenlet.kill(TooSlow("ended"))
"""


def test_a_timeout_or_kill_with_an_exception_of_the_applications_ends_the_wait_for_delivery(
    sink: HttpSink, tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs("gevent")
    sink.answer = hang(sink)
    env = settings(sink, {"FAILPATH_DELIVERY": "await", "FAILPATH_SEND_TIMEOUT_MILLIS": "4000"})
    done = script(tmp_path, PATCH + MAKE + TIME_LIMIT, env)
    assert done.stdout.splitlines() == ["timeout: by the application's own words", "kill: ended"], done.stderr
