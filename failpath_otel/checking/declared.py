"""Where flows.json declares a flow or a node: a line for whoever reads a finding."""

from __future__ import annotations

import json
import re
from pathlib import Path


def place_in_flows(path: Path, slug: str, key: str | None) -> tuple[int, int]:
    """Line and column, from 1; those of the file's beginning where the text is written in some other way."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return 1, 1
    start = _first(text, "slug", slug, 0)
    found = start if key is None else _first(text, "sdkStepKey", key, start or 0)
    if found is None:
        return 1, 1
    line = text.count("\n", 0, found) + 1
    return line, found - text.rfind("\n", 0, found)


def _first(text: str, field: str, value: str, start: int) -> int | None:
    written = {json.dumps(value), json.dumps(value, ensure_ascii=False)}
    pattern = rf'"{field}"\s*:\s*(?:{"|".join(map(re.escape, sorted(written)))})'
    match = re.compile(pattern).search(text, start)
    return None if match is None else match.start()
