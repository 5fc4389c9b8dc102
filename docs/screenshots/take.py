"""Takes the README's pictures from a running demo: the list of runs and one run, light and dark.

``make screenshots``. Needs Chromium (FAILPATH_CHROMIUM, or ``chromium`` on the path) and the extras ``demo`` and ``test``.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, Literal

from playwright.sync_api import Page, sync_playwright

FOLDER: Final = Path(__file__).parent
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
WIDTH: Final = 1200
START_SECONDS: Final = 90


def main() -> None:
    """Writes ``runs-light.png``, ``runs-dark.png``, ``run-light.png`` and ``run-dark.png`` beside this file."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "demo"
        with written.open("wb") as output:
            demo = subprocess.Popen([sys.executable, "-m", "failpath_otel.cli", "demo", "--stay"], stdout=output)
        try:
            take(wait_for_address(demo, written))
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait()


def wait_for_address(demo: subprocess.Popen[bytes], written: Path) -> str:
    """The server's address, once the demo has found all runs as they were done."""
    deadline = time.monotonic() + START_SECONDS
    while demo.poll() is None and time.monotonic() < deadline:
        found = re.search(r"See them at (http://\S+)\n", written.read_text())
        if found:
            return found[1]
        time.sleep(0.1)
    sys.exit(f"the demo did not come up:\n{written.read_text()}")


def take(address: str) -> None:
    """Takes all pictures from the server at ``address``."""
    browser_path = os.environ.get("FAILPATH_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        for scheme in SCHEMES:
            context = browser.new_context(color_scheme=scheme, viewport={"width": WIDTH, "height": 640})
            tab = context.new_page()
            tab.goto(address)
            keep(tab, f"runs-{scheme}")
            tab.goto(f"{address}/?status=error")
            tab.locator(".cell-run a").last.click()
            # Not the stack: it would show where this checkout lies.
            tab.locator(".step.is-error summary", has_text="Metadata").first.click()
            keep(tab, f"run-{scheme}")
            context.close()
        browser.close()


def keep(tab: Page, name: str) -> None:
    """Writes the whole page as it stands."""
    path = FOLDER / f"{name}.png"
    tab.screenshot(path=path, full_page=True)
    print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    main()
