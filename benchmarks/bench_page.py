"""How soon each page of the dashboard paints something, and how soon it shows its data, in a real browser over loopback.

Each load has a browser context of its own, so nothing is cached. The server is a process of its own.

Usage: ``python benchmarks/bench_page.py [DATABASE of make_store.py] [loads, default 15]``. Without one, 10,000 runs are made.
Needs Chromium (FAILPATH_CHROMIUM, or ``chromium`` on the path) and the extra ``test``.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlencode

from bench_reads import Caller
from bench_server_ingest import with_server
from harness import QUICK, Row, report
from make_store import flows_json, make

BOUND_MS = 500
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"


def pages(url: str) -> dict[str, tuple[str, str]]:
    """Path and a selector of what shows data, by the page's name."""
    caller = Caller(url)
    run = caller.json("/api/runs", flow="checkout", status="error", limit=1)["runs"][0]
    return {
        "flows": ("/", ".card"),
        "a flow, last 100 runs": ("/flow?flow=checkout", ".grid-box use"),
        "a flow, last 1000 runs": ("/flow?flow=checkout&last=1000", ".grid-box use"),
        "runs": ("/runs", ".runs tbody tr"),
        "a run": (f"/run?{urlencode({'flow': 'checkout', 'run_id': run['runId']})}", ".graph .node"),
        "intake": ("/intake", ".tile"),
    }


def measure(url: str, loads: int) -> list[Row]:
    from playwright.sync_api import sync_playwright

    rows = []
    with sync_playwright() as playwright:
        path = os.environ.get("FAILPATH_CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for name, (where, shown) in pages(url).items():
            paints, datas = [], []
            for _ in range(loads):
                context = browser.new_context(viewport={"width": 1280, "height": 900})
                tab = context.new_page()
                tab.goto(url + where)
                tab.locator(shown).first.wait_for()
                datas.append(tab.evaluate("performance.now()"))
                paints.append(tab.evaluate(PAINT))
                context.close()
            paint, data = statistics.median(paints), statistics.median(datas)
            worst = max(paints)
            measured = f"first paint {paint:.0f} ms (at worst {worst:.0f}), its data {data:.0f} ms"
            rows.append(Row(f"page: {name}", measured, f"first paint ≤ {BOUND_MS} ms", paint <= BOUND_MS))
        browser.close()
    return rows


def main() -> None:
    loads = int(sys.argv[2]) if len(sys.argv) > 2 else 3 if QUICK else 15
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        database = Path(sys.argv[1]) if len(sys.argv) > 1 and not sys.argv[1].startswith("--") else Path(folder, "runs.db")
        if not database.exists():
            make(str(database), 10_000, 30)
            database.with_name("flows.json").write_text(json.dumps(flows_json()))
        options = ("--db", str(database), "--flows", str(database.parent / "flows.json"))
        with_server(folder, options, None, lambda url, _: rows.extend(measure(url, loads)))
    report("page", rows, "playwright")


if __name__ == "__main__":
    main()
