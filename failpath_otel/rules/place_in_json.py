"""At which line of a JSON text a value stands, for messages. The text is known to be valid."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, cast

from failpath_otel.rules.checked import Place

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_decoder: Final = json.JSONDecoder()
_string = cast("Callable[[str, int], tuple[str, int]]", cast("Any", json.decoder).scanstring)


def line_of(text: str, place: Place) -> int:
    """The line of the value to which ``place`` leads, from 1; where something on the way is missing, of what is around."""
    at = _skip(text, 0)
    for key in place:
        found = _member(text, at, key) if isinstance(key, str) else _element(text, at, key)
        if found is None:
            break
        at = found
    return text.count("\n", 0, at) + 1


def _member(text: str, at: int, key: str) -> int | None:
    """Where the value of a key begins. Of two with one name the later counts, as for the decoder."""
    found = None
    if text[at] != "{":
        return None
    at = _skip(text, at + 1)
    while text[at] == '"':
        name, at = _string(text, at + 1)
        at = _skip(text, _skip(text, at) + 1)
        if name == key:
            found = at
        at = _after(text, at)
    return found


def _element(text: str, at: int, position: int) -> int | None:
    if text[at] != "[":
        return None
    at = _skip(text, at + 1)
    while text[at] != "]":
        if position == 0:
            return at
        position -= 1
        at = _after(text, at)
    return None


def _after(text: str, at: int) -> int:
    """Where the next member or element begins, or the end of what holds them."""
    _, at = _decoder.raw_decode(text, at)
    at = _skip(text, at)
    return _skip(text, at + 1) if text[at] == "," else at


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
