"""The clocks go on, whatever was put in place of those of `time`. neighbours/test_frozen_clocks.py has the real packages."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest

from failpath_otel import clock
from failpath_otel.testing import RecordingClient

NAMES = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep")


@pytest.fixture
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each function of `time` gives the same at each call."""
    for name in NAMES:
        monkeypatch.setattr(time, name, lambda *_: 1000)


def test_the_clocks_are_real_while_those_of_time_are_replaced(no_clock: None) -> None:
    assert clock.time_ns() > 1_700_000_000 * 10**9
    before = clock.monotonic()
    while clock.monotonic() == before:
        pass
    assert clock.monotonic() > before


def test_the_clocks_are_real_where_they_are_imported_while_those_of_time_are_replaced() -> None:
    source = f"""
import time
real = time.time_ns()
for name in {NAMES}:
    setattr(time, name, lambda *_: 1000)
from failpath_otel import clock
assert real <= clock.time_ns() < real + 3600 * 10**9
before = clock.monotonic()
while clock.monotonic() == before:
    pass
assert time.time() == time.monotonic() == 1000, "the module that all share is left alone"
"""
    subprocess.run([sys.executable, "-c", source], check=True, timeout=60)


def test_the_clocks_are_functions_of_c_which_cost_a_step_no_frame() -> None:
    assert {type(clock.monotonic), type(clock._system_ns)} == {type(len)}


def test_events_have_real_times_while_the_clock_of_the_test_stands_still(
    no_clock: None, failpath_client: RecordingClient
) -> None:
    began = clock.time_ns()
    run = failpath_client.run("checkout", "1")
    run.step("charge", lambda: None)
    run.skip("mail")
    failpath_client.record_step(flow_key="checkout", run_id="1", step_key="told", status="error", error=ValueError("no"))
    assert all(began <= event.timestamp <= clock.time_ns() for event in failpath_client.events)


class Hatch:
    """time-machine's way out, with the answers that a test wants, one at each call."""

    def __init__(self, travelling: list[bool], time_ns: Callable[[], int]) -> None:
        self.is_travelling = lambda: travelling.pop(0)
        self.time = SimpleNamespace(time_ns=time_ns)


@pytest.fixture
def time_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Hatch], None]:
    """Has the clock notice a time-machine with this way out."""

    def loaded(hatch: Hatch) -> None:
        module = ModuleType("time_machine")
        module.escape_hatch = hatch  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "time_machine", module)
        monkeypatch.setattr(clock, "time_ns", clock._system_ns)
        clock.notice_time_machine()

    return loaded


def ended() -> int:
    raise ValueError("Not currently time-travelling.")


@pytest.mark.parametrize(
    ("travelling", "out"),
    [([True], lambda: 7), ([False, True, True], lambda: 7)],
    ids=["while it travels", "where a travel begins amid the look"],
)
def test_time_machine_is_asked_for_the_real_time(
    travelling: list[bool], out: Callable[[], int], time_machine: Callable[[Hatch], None]
) -> None:
    time_machine(Hatch(travelling, out))
    assert clock.time_ns() == 7
    assert travelling == []


@pytest.mark.parametrize(
    ("travelling", "out"),
    [([False, False], lambda: 7), ([True, False, False], ended)],
    ids=["while it does not travel", "where a travel ends amid the look"],
)
def test_the_system_is_asked_where_time_machine_is_loaded_and_does_nothing(
    travelling: list[bool], out: Callable[[], int], time_machine: Callable[[Hatch], None]
) -> None:
    time_machine(Hatch(travelling, out))
    assert clock.time_ns() > 1_700_000_000 * 10**9
    assert travelling == []


def test_a_run_notices_time_machine(time_machine: Callable[[Hatch], None], failpath_client: RecordingClient) -> None:
    hatch = Hatch([True] * 100, lambda: 1_800_000_000 * 10**9)
    time_machine(hatch)
    clock.time_ns = clock._system_ns
    failpath_client.run("checkout", "1").step("charge", lambda: None)
    assert [event.timestamp for event in failpath_client.events] == [1_800_000_000 * 10**9] * 2
