"""What every test has: guards that the wheel is what is tested and that no thread is left behind, profiles, a Chromium."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import failpath_otel

# The machines that run this are busy; a slow example is no failure, and CI is to give the same answer each time.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
settings.register_profile("quick", settings.get_profile("here"), max_examples=20)
settings.load_profile(os.environ.get("FAILPATH_TEST_PROFILE") or ("ci" if os.environ.get("CI") else "here"))

ROOT = Path(__file__).parent.parent

# concurrent.futures.thread is imported here for its fork handler: OpenTelemetry's own asks for a thread in a forked child, and
# where it is registered first it waits for ever, for a lock that is not made anew yet.

# What a script starts in the background has SIGINT ignored by its shell, and so have all processes of the tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout, where README.md, docs/ and examples/ lie."""
    return ROOT


# Whole servers, commands and examples as processes, real deadlines and outages, memory and much made-up input: seconds a test.
TAKES_LONG = (
    "browser/", "collector/", "delivery/exporters/", "delivery/test_delivery.py", "delivery/test_exit.py",
    "delivery/test_fork.py", "delivery/test_full_queue.py", "delivery/test_interruption.py", "delivery/test_outage.py",
    "delivery/test_poison.py",
    "doctor/test_command.py", "examples/", "integrations/test_two_services.py", "neighbours/", "rules/test_bounds.py",
    "sdk/test_testing.py", "server/conformance/", "server/test_crash.py", "server/test_forward.py",
    "server/test_forward_bounds.py", "server/test_forward_options.py", "server/test_forward_poison.py",
    "server/test_forward_process.py",
    "server/test_fuzz.py", "server/test_hostile_bodies.py", "server/test_otlp_grpc.py", "server/test_otlp_grpc_process.py",
    "server/test_page_served.py", "server/test_retention.py", "server/test_serve.py", "test_demo.py", "test_docs.py",
)  # fmt: skip
SECOND_ROUND = "spans without private fields"
NEEDS = {"chromium_path": "browser", "postgres_url": "database"}
"""What has to be installed apart, by the fixture that looks for it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what `make quick` leaves out."""
    for item in items:
        place = item.path.relative_to(ROOT / "tests").as_posix()
        if place.startswith(TAKES_LONG) or SECOND_ROUND in item.nodeid:
            item.add_marker("slow")
        for fixture, marker in NEEDS.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)
        if getattr(getattr(item, "callspec", None), "params", {}).get("db") == "postgresql":
            item.add_marker("database")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Names bodies by their length: a gzip body holds its time, and workers that run in parallel must agree on all names."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


def pytest_sessionstart() -> None:
    if os.environ.get("FAILPATH_TEST_INSTALLED"):
        found = Path(failpath_otel.__path__[0])
        if not found.is_relative_to(sys.prefix):
            raise pytest.UsageError(f"the installed wheel should be tested, but failpath_otel comes from {found}")


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The path of a Chromium. Without one the test is skipped, or fails where CI is set: there it must not go unseen."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("FAILPATH_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path:
        return path
    message = "no Chromium found: apt-get install chromium, or set FAILPATH_CHROMIUM to its path"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Threads that a module's tests started and that are no daemons have ended when the module is done."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in set(threading.enumerate()) - before if not thread.daemon]
    for thread in left:
        thread.join(timeout=5)
    alive = [thread.name for thread in left if thread.is_alive()]
    assert not alive, f"threads left behind: {alive}"
