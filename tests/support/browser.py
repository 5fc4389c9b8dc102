"""A real browser for tests: tabs that keep whatever goes wrong in them, accessibility by axe, and events to look at."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from playwright.sync_api import Browser, Page, expect
from support.served import Client

from failpath_otel.events.wire import format_time

AXE = Path(__file__).parents[2] / "failpath_otel" / "server" / "ui" / "node_modules" / "axe-core" / "axe.min.js"
WAIT_MILLIS = 30_000
"""How long a page is waited for, on a machine that may be busy."""
CLOCK_STOPPED = """
    const later = window.setTimeout;
    window.setTimeout = (work, millis, ...rest) => (millis >= 5000 ? 0 : later(work, millis, ...rest));
"""
"""In such a page nothing is read again because time has gone by; what changes, changes by news."""
HOSTILE = "<script>document.title='owned'</script>/../\u202egnp.exe\n\"'&<img src=x onerror=alert(1)>"
"""An id, key or message that would do harm where text is taken for markup."""

expect.set_options(timeout=WAIT_MILLIS)
_numbers = itertools.count(1)


class Visit:
    """A tab. ``wrong`` keeps script errors, refused content, console messages, dialogs and failed requests.

    Without ``reads_by_clock`` it shows only what news bring.
    """

    def __init__(
        self, browser: Browser, url: str, *, width: int = 1280, scheme: Any = "light", reads_by_clock: bool = True
    ) -> None:
        self.url = url
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        if not reads_by_clock:
            self.context.add_init_script(CLOCK_STOPPED)
        self.tab: Page = self.context.new_page()
        self.tab.set_default_timeout(WAIT_MILLIS)
        self.wrong: list[str] = []
        self.tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.tab.on("console", lambda message: self.wrong.append(message.text))
        self.tab.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss())[0])
        self.tab.on("requestfailed", self._failed)

    def _failed(self, request: Any) -> None:
        # Reads and the stream are broken off when the page does not need them any more.
        if "ERR_ABORTED" not in (request.failure or ""):
            self.wrong.append(f"{request.url}: {request.failure}")

    def open(self, path: str = "/", **parameters: str) -> Page:
        """Opens a page of the dashboard and waits until its first reads are shown."""
        query = f"?{urlencode(parameters)}" if parameters else ""
        self.tab.goto(f"{self.url}{path}{query}")
        self.tab.wait_for_selector("h1")
        expect(self.tab.locator(".loading")).to_have_count(0)
        return self.tab

    def address(self) -> str:
        """Path and query of where the tab is."""
        found: str = self.tab.evaluate("location.pathname + location.search")
        return found

    def overflows(self) -> bool:
        """True where the page is wider than the window."""
        found: bool = self.tab.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        return found

    def violations(self) -> list[str]:
        """What axe finds against WCAG 2.2 A and AA, a line for each element."""
        self.tab.evaluate(AXE.read_text())
        tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
        found = self.tab.evaluate("tags => axe.run(document, {runOnly: tags})", tags)
        return [
            f"{violation['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
            for violation in found["violations"]
            for node in violation["nodes"]
        ]

    def close(self) -> None:
        """Closes the tab; to be called before the server stops."""
        self.context.close()


def events_of(
    flow: str,
    run_id: str,
    steps: Mapping[str, str],
    *,
    ago: float = 60.0,
    millis: float = 20.0,
    **more: Any,
) -> list[dict[str, Any]]:
    """Wire events of a run: step key → status, one step after the other from ``ago`` seconds before now; ``more`` on each."""
    at = time.time_ns() - int(ago * 1e9)
    events: list[dict[str, Any]] = []
    for key, status in steps.items():
        span = f"{next(_numbers):016x}"
        base = {"flowKey": flow, "runId": run_id, "stepKey": key, "spanId": span, **more}
        if status != "skipped":
            events.append(base | {"eventId": f"{span}-start", "status": "running", "timestamp": format_time(at)})
        if status != "running":
            started = at
            at += 0 if status == "skipped" else int(millis * 1e6)
            end = base | {
                "eventId": f"{span}-end",
                "status": status,
                "timestamp": format_time(at),
                "startedAt": format_time(started),
            }
            if status == "error":
                end = {"error": {"name": "CardDeclined", "message": "insufficient funds", "stack": "Traceback\n  line 1"}} | end
            events.append(end)
    return events


def send(api: Client, *events: dict[str, Any]) -> None:
    """Has the server take these events, all of them."""
    for start in range(0, len(events), 1000):
        answer = api.send_events(*events[start : start + 1000])
        assert answer.status == 202, answer.body
        assert answer.json["rejected"] == []
