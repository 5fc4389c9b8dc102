"""Work with the network, each in a thread of its own and all within one deadline: a name may take long to resolve."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from failpath_otel import clock
from failpath_otel.doctor.finding import Finding, problem, warning

Look = Callable[[float], "list[Finding]"]
"""Given the seconds that are left; gives findings."""


@dataclass(frozen=True)
class Probe:
    """A destination to look at."""

    check: str
    where: str
    look: Look


def probe_all(probes: Iterable[Probe], deadline: float) -> Iterator[Finding]:
    """The findings of each probe, in order; one that is not back by ``deadline`` (monotonic seconds) is a finding too."""
    started = [(probe, _start(probe, deadline)) for probe in probes]
    for probe, answers in started:
        try:
            yield from answers.get(timeout=max(0.05, deadline - clock.monotonic()))
        except queue.Empty:  # noqa: PERF203 - each probe stands alone
            yield no_answer(probe.check, f"{probe.where} gave no answer within the time")


def no_answer(check: str, what: str) -> Finding:
    """Nobody is there."""
    return problem(
        check,
        what,
        "Nothing arrives there; what is recorded waits in a bounded queue.",
        "See that it runs and that this machine may reach it (name, port, firewall, proxy); --timeout gives it more time.",
    )


def connects(check: str, where: str) -> Probe:
    """A probe that only connects: for destinations that are not ours to send to."""
    return Probe(check, where, lambda seconds: _connect(where, check, seconds))


def _connect(where: str, check: str, seconds: float) -> list[Finding]:
    parts = urlsplit(where if "://" in where else f"//{where}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), seconds).close()
    except OSError as error:
        return [
            warning(
                check,
                f"{where} cannot be reached: {error}",
                "The service's traces do not arrive there; steps by HTTP are reported all the same.",
                "Start the Collector, or correct OTEL_EXPORTER_OTLP_ENDPOINT; OTEL_TRACES_EXPORTER=none does without traces.",
            )
        ]
    return []


def _start(probe: Probe, deadline: float) -> queue.Queue[list[Finding]]:
    answers: queue.Queue[list[Finding]] = queue.Queue()

    def look() -> None:
        try:
            found = probe.look(max(0.05, deadline - clock.monotonic()))
        except Exception as error:  # a finding, too: an examination does not end amid itself
            found = [no_answer(probe.check, f"{probe.where} cannot be asked: {type(error).__name__}: {error}")]
        answers.put(found)

    threading.Thread(target=look, name=f"failpath-otel doctor {probe.where}", daemon=True).start()
    return answers
