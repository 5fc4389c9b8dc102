"""Takes the README's pictures from a running demo: flows, a flow, runs and a run, light and dark.

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
# Stacks would show where this checkout lies.
SHORTEN: Final = """root => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(root, "");
}"""
PAGES: Final = (("flows", "/", ".card"), ("flow", "/flow?flow=checkout", ".scatter svg"), ("runs", "/runs", ".runs tbody tr"))


def main() -> None:
    """Writes ``flows``, ``flow``, ``runs`` and ``run``, each ``-light.png`` and ``-dark.png``, beside this file."""
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
            for name, path, shown in PAGES:
                tab.goto(f"{address}{path}")
                tab.locator(shown).first.wait_for()
                keep(tab, f"{name}-{scheme}")
            tab.goto(f"{address}/runs?status=error")
            tab.locator(".runs tbody th a").last.click()
            tab.locator(".stack").first.wait_for()
            tab.evaluate(SHORTEN, f"{FOLDER.parent.parent}/")
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
