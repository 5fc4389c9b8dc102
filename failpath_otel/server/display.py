"""Values as the page shows them: hostile text made inert and visible, times and durations made readable. Pure."""

from __future__ import annotations

import json
import re
from typing import Any, Final
from urllib.parse import urlencode

from markupsafe import Markup, escape

# Control characters, bidirectional controls and invisible characters, by which one text can pass for another. The zero
# width joiners stay: Persian words and many emoji are spelled with them.
_DECEPTIVE: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)

_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 60 * _MINUTE_MS
_DAY_MS: Final = 24 * _HOUR_MS

MISSING_REASONS: Final = {
    "never_instrumented": "no run of this flow has ever reported this step",
    "upstream_error": "a step before it failed",
    "passed_over": "a later step reported, this one did not",
    "not_yet": "not yet: the run may still be under way",
    "overdue": "it never came, and no step is running any more",
}
"""The server's reasons for a missing step, in words."""


def identifier(text: str) -> Markup:
    """An id or a label on one line: isolated from the text around it, with every invisible character spelled out."""
    core = text.strip(" ")
    before, after = text[: len(text) - len(text.lstrip(" "))], text[len(text.rstrip(" ")) :] if core else ""
    return Markup('<bdi class="id">{}{}{}</bdi>').format(_spaces(before), _marked(core, keep=""), _spaces(after))


def prose(text: str) -> Markup:
    """Text of several lines: line breaks and tabs stay, other invisible characters are spelled out."""
    return Markup("<bdi>{}</bdi>").format(_marked(text.replace("\r\n", "\n"), keep="\n\t"))


def plain(text: str) -> str:
    """One line without markup, for the title of the page."""
    return _DECEPTIVE.sub(lambda found: _escape_of(found.group()), text)


def moment(time: str) -> Markup:
    """An RFC 3339 time in UTC, to the millisecond: ``2026-01-31 09:30:00.125``."""
    return Markup('<time datetime="{}">{} <span class="clock">{}</span></time>').format(time, time[:10], time[11:23])


def duration(millis: float | None) -> str:
    """Milliseconds in the unit that reads best, and a dash where they are not known."""
    if millis is None:
        return "\u2013"
    if millis < 100:
        return f"{millis:.1f} ms"
    if millis < 999.5:
        return f"{millis:.0f} ms"
    if millis < _MINUTE_MS:
        return f"{millis / 1000:.2f} s"
    if millis < _HOUR_MS:
        return f"{millis // _MINUTE_MS:.0f} min {millis % _MINUTE_MS // 1000:.0f} s"
    if millis < _DAY_MS:
        return f"{millis // _HOUR_MS:.0f} h {millis % _HOUR_MS // _MINUTE_MS:.0f} min"
    return f"{millis // _DAY_MS:.0f} d {millis % _DAY_MS // _HOUR_MS:.0f} h"


def value(item: Any) -> Markup:
    """A metadata value: text as it is, everything else as JSON."""
    if isinstance(item, str):
        return prose(item)
    spread = isinstance(item, dict | list) and item not in ({}, [])
    return prose(json.dumps(item, ensure_ascii=False, indent=2 if spread else None))


def link(path: str, **parameters: str | None) -> str:
    """``path`` with the parameters that are set as its query. Ids are arbitrary text and never become part of a path."""
    given = {name: text for name, text in parameters.items() if text}
    return f"{path}?{urlencode(given)}" if given else path


def _marked(text: str, keep: str) -> Markup:
    out: list[Markup] = []
    end = 0
    for found in _DECEPTIVE.finditer(text):
        if found.group() in keep:
            continue
        out.append(escape(text[end : found.start()]))
        out.append(_spelled(_escape_of(found.group())))
        end = found.end()
    out.append(escape(text[end:]))
    return Markup("").join(out)


def _spaces(text: str) -> Markup:
    return _spelled("\\x20" * len(text)) if text else Markup("")


def _spelled(text: str) -> Markup:
    return Markup('<span class="invisible">{}</span>').format(text)


def _escape_of(character: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    code = ord(character)
    return named.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
