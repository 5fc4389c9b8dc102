"""10,000 steps through an outage of 30 s, beside the same steps without one: what the application's calls take, what is lost.

Two processes of the same service run at the same time and at the same pace, each before a real ``failpath-otel serve`` of its
own. In front of one of the two stands a gate that is down for a third of the time, answers 503 with Retry-After for a third,
and resets connections for a third, every second time after the server has stored the request; then it works.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness import QUICK, Row, report

PHASE_SECONDS = 1.0 if QUICK else 10.0
STEPS = 10_000
RUNS = 100
WORKER = "--worker"


def work(url: str) -> None:
    """The service: paced steps, the time of each, and what became of their events."""
    from failpath_otel import FailpathClient

    client = FailpathClient(endpoint=url, flows=False)
    runs = [client.run("checkout", f"r{number}") for number in range(RUNS)]
    seconds = 3.3 * PHASE_SECONDS
    taken: list[int] = []
    clock = time.perf_counter_ns
    sys.stdin.readline()  # both arms start together
    started = time.monotonic()
    for number in range(STEPS):
        ahead = started + number / STEPS * seconds - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        step = runs[number % RUNS].step
        before = clock()
        step("charge-card", nothing)
        taken.append(clock() - before)
    flushing = time.monotonic()
    stats = client.flush(120_000)
    flushed = time.monotonic() - flushing
    taken.sort()
    told = {
        "p50": taken[STEPS // 2] / 1000,
        "p99": taken[STEPS * 99 // 100] / 1000,
        "max": taken[-1] / 1000,
        "sent": stats.sent,
        "pending": stats.pending,
        "dropped": dict(stats.dropped),
        "retries": client.stats().retries,
        "flush_seconds": flushed,
        "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,  # KiB on Linux
        "cpu_seconds": time.process_time(),
    }
    print(json.dumps(told), flush=True)


def nothing() -> None:
    """The function within every step."""


class Gate:
    """Listens where the service sends to, and lets requests through to the server, or not."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._phase = "down"
        self._cut = 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def run(self) -> None:
        """The phases, in turn."""
        time.sleep(PHASE_SECONDS)
        self._phase = "503"
        listener = socket.create_server(("127.0.0.1", self.port), backlog=64, reuse_port=False)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        time.sleep(PHASE_SECONDS)
        self._phase = "reset"
        time.sleep(PHASE_SECONDS)
        self._phase = "works"

    def _accept(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        server = http.client.HTTPConnection("127.0.0.1", self._target, timeout=30)
        stream = connection.makefile("rb")
        with suppress(OSError), connection:
            while line := stream.readline():
                headers = {}
                while header := stream.readline().strip():
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = stream.read(int(headers.get("content-length", 0)))
                self._answer(connection, server, line.split()[1].decode(), headers, body)

    def _answer(
        self, connection: socket.socket, server: http.client.HTTPConnection, path: str, headers: Any, body: bytes
    ) -> None:
        if self._phase == "503":
            connection.sendall(b"HTTP/1.1 503 X\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n")
            return
        kept = {name: headers[name] for name in ("content-type", "content-encoding") if name in headers}
        if self._phase == "reset":
            self._cut += 1
            if self._cut % 2:
                server.request("POST", path, body, kept)
                server.getresponse().read()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise ConnectionResetError
        server.request("POST", path, body, kept)
        answer = server.getresponse()
        content = answer.read()
        connection.sendall(f"HTTP/1.1 {answer.status} X\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)


def serve(folder: Path) -> tuple[subprocess.Popen[str], int]:
    """A real server with a database of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "failpath_otel.cli", "serve", "--port", str(port), "--db", str(folder / "runs.db")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
    for _ in range(300):
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5):
            return process, port
        time.sleep(0.1)
    raise SystemExit("the server did not come up")


def stored(port: int) -> Counter[tuple[str, str]]:
    """How many events of each status the store holds; an event that is there twice ends the benchmark."""
    found: Counter[tuple[str, str]] = Counter()
    for number in range(RUNS):
        url = f"http://127.0.0.1:{port}/api/run/events?flow=checkout&run_id={quote(f'r{number}')}"
        with urllib.request.urlopen(url, timeout=60) as response:
            events = json.load(response)["events"]
        ids = [event["eventId"] for event in events]
        assert len(ids) == len(set(ids)), "an event is stored twice"
        found.update(("stored", event["status"]) for event in events)
    return found


def start(url: str) -> subprocess.Popen[str]:
    """The service, which waits for a line to begin."""
    command = [sys.executable, __file__, WORKER, url, *(["--quick"] if QUICK else [])]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FAILPATH_")}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    servers = []
    try:
        for name in ("calm", "outage"):
            (folder / name).mkdir()
            servers.append(serve(folder / name))
        gate = Gate(servers[1][1])
        arms = [start(f"http://127.0.0.1:{servers[0][1]}"), start(f"http://127.0.0.1:{gate.port}")]
        time.sleep(2)
        threading.Thread(target=gate.run, daemon=True).start()
        for arm in arms:
            assert arm.stdin is not None
            arm.stdin.write("go\n")
            arm.stdin.flush()
        calm, outage = (json.loads(arm.communicate(timeout=300)[0]) for arm in arms)
        counts = [stored(port) for _, port in servers]
    finally:
        for process, _ in servers:
            process.send_signal(signal.SIGTERM)
            process.wait(10)
        shutil.rmtree(folder)
    print(json.dumps({"without": calm, "with": outage}, indent=2))
    expected = Counter({("stored", "running"): STEPS, ("stored", "success"): STEPS})
    exact = counts[1] == expected and outage["dropped"] == {} and outage["pending"] == 0
    shown = f"{sum(counts[1].values()):,} of {2 * STEPS:,} events stored, each once; {outage['retries']} retries"
    seconds = f"{3 * PHASE_SECONDS:.0f} s"
    report(
        "outage",
        [
            Row(f"{STEPS:,} steps through an outage of {seconds}", shown, "every event exactly once", exact),
            *(
                Row(
                    f"run.step, {name}, without | with the outage",
                    f"{calm[name]:.0f} | {outage[name]:.0f} µs",
                    "as without" if name == "p99" else "",
                    outage[name] <= calm[name] * 1.25 if name == "p99" else None,
                )
                for name in ("p50", "p99", "max")
            ),
            Row("peak memory of the process, without | with", f"{calm['rss_mib']:.0f} | {outage['rss_mib']:.0f} MiB"),
            Row("processor time, without | with", f"{calm['cpu_seconds']:.1f} | {outage['cpu_seconds']:.1f} s"),
        ],
    )
    if not exact:
        raise SystemExit(f"expected {expected}, found {counts[1]}, {outage}")


if __name__ == "__main__":
    if WORKER in sys.argv:
        work(sys.argv[sys.argv.index(WORKER) + 1])
    else:
        main()
