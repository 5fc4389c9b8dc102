"""Whether a process ends in the time that it promises, on a machine that may be busy with other things."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

from support.served import Served

PROMISED_SECONDS = 2.0
"""From a signal to the end, on a machine that has time for it; benchmarks/bench_stop.py measures it."""
ALLOWED_TIMES = 5
"""How many times what the other process takes may come on top."""


def assert_ends_in_time(server: Served, beside: Served, sig: int = signal.SIGTERM) -> None:
    """Ends both at once, in order, and compares.

    ``beside`` is a server that has nothing to wait for, so what it takes is what an end costs on this machine at this moment.
    What ``server`` waits for is to hang for longer than all of this.
    """
    with ThreadPoolExecutor(2) as pool:
        taken, plain = pool.map(lambda one: _seconds_of_end(one, sig), (server, beside))
    assert taken < PROMISED_SECONDS + ALLOWED_TIMES * plain, f"{taken:.2f} s, and {plain:.2f} s with nothing to wait for"


def _seconds_of_end(server: Served, sig: int) -> float:
    begin = time.monotonic()
    assert server.stop(sig) == 0, server.log.read_text()
    return time.monotonic() - begin
