"""Writes what the benchmarks measured last, from ``build/bench``, into the table of ``docs/performance.md``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "build" / "bench"
PAGE = RESULTS.parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- measured: begin, written by `make bench` -->", "<!-- measured: end -->"


def section(name: str, kept: dict[str, Any]) -> str:
    lines = [
        f"### {name.replace('-', ' ').replace('_', ' ').capitalize()}",
        "",
        "| what | measured | bound | |",
        "|---|---|---|---|",
    ]
    for row in kept["rows"]:
        met = {True: "met", False: "**missed**", None: ""}[row["met"]]
        cells = [str(cell).replace("|", "/") for cell in (row["what"], row["measured"], row["bound"], met)]
        lines.append(f"| {' | '.join(cells)} |")
    quick = " Measured with `--quick`: few rounds." if kept["quick"] else ""
    return "\n".join([*lines, "", f"{kept['versions']}.{quick}"])


def main() -> None:
    found = [section(path.stem, json.loads(path.read_text())) for path in sorted(RESULTS.glob("*.json"))]
    page = PAGE.read_text()
    table = "\n\n".join([BEGIN, *found, END])
    if BEGIN in page:
        page = re.sub(re.escape(BEGIN) + ".*" + re.escape(END), lambda _: table, page, flags=re.DOTALL)
    else:
        page = f"{page.rstrip()}\n\n{table}\n"
    PAGE.write_text(page)
    print(f"{len(found)} tables written to {PAGE.name}")


if __name__ == "__main__":
    main()
