"""When two failures are of one kind: same step, same error name, same message but for what differs from case to case. Pure."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Final

_LOOKED_AT: Final = 300
"""Characters of a message; what comes later mostly repeats the case."""

# No part of it can go back far over what it has read: the messages are of others.
_PARTS: Final = re.compile(
    r"""
    (?P<text> (?<![A-Za-z0-9_]) (?P<quote>['"`]) (?: (?!(?P=quote)) . ){0,120} (?P=quote) (?![A-Za-z0-9_])
        | “[^”]{0,120}” | «[^»]{0,120}» )
    | (?P<url> [A-Za-z][A-Za-z0-9+.-]{1,15}://\S+ )
    | (?P<email> [A-Za-z0-9_.+-]{1,64}@[A-Za-z0-9_.-]+ )
    | (?P<uuid> \b[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}\b )
    | (?P<time> \b[0-9]{4}-[0-9]{2}-[0-9]{2}
        (?: [T ][0-9]{2}:[0-9]{2} (?: :[0-9]{2}(?:\.[0-9]{1,9})? )? (?: Z | [+-][0-9]{2}:?[0-9]{2} )? )? \b )
    | (?P<ip> \b[0-9]{1,3}(?:\.[0-9]{1,3}){3}\b(?::[0-9]{1,5}\b)? | \[[0-9A-Fa-f:]{2,39}\](?::[0-9]{1,5}\b)? )
    | (?P<word> [A-Za-z0-9_]+ )
    """,
    re.VERBOSE,
)
_DIGITS: Final = re.compile(r"[0-9]+")
_HEX: Final = re.compile(r"(?:0[xX])?[0-9A-Fa-f]+")
_RUNS: Final = re.compile(r"[0-9]+|[A-Za-z]+")
_NUMBERS: Final = re.compile(r"<n>(?:[.,:/-]<n>)+")
_SHORTEST_ID: Final = 8


@lru_cache(maxsize=4096)
def fingerprint(step_key: str, name: str, message: str) -> str:
    """The same for failures of one kind: 16 hexadecimal digits."""
    parts = "\0".join((step_key, name, normal(message)))
    return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def normal(message: str) -> str:
    """The first line of a message with placeholders for numbers, ids, addresses and quoted text."""
    line = next((line for line in message[:_LOOKED_AT].splitlines() if line.strip()), "")
    return _NUMBERS.sub("<n>", _PARTS.sub(_placeholder, line.strip()))


def _placeholder(found: re.Match[str]) -> str:
    kind = found.lastgroup
    if kind == "quote":
        kind = "text"
    return _word(found.group()) if kind == "word" else f"<{kind}>"


def _word(word: str) -> str:
    if _DIGITS.search(word) is None:
        return word
    if _HEX.fullmatch(word) and (word[:2] in ("0x", "0X") or (len(word) >= _SHORTEST_ID and not word.isdigit())):
        return "<hex>"
    if len(word) >= _SHORTEST_ID and len(_RUNS.findall(word)) > 3:
        return "<id>"
    return _DIGITS.sub("<n>", word)
