"""JSON bodies that a strict reader refuses as a whole for the sake of one item, made readable."""

from __future__ import annotations

import json
import re
from typing import Any, Final, TypeGuard

import msgspec

from failpath_otel.events.text import scrub

MAX_DEPTH: Final = 64
MAX_REPAIR_BYTES: Final = 2 * 1024 * 1024
"""Larger bodies are refused instead: a repair takes about a second for each 8 MiB of brackets."""

# A string's closing quote is optional: were the match to fail there, each quote within would be tried as a beginning anew.
_TOKENS: Final = re.compile(rb'"(?:[^"\\]+|\\.)*"?|[\[{\]}]', re.DOTALL)
_CUT: Final = b'"[cut: deeper than %d]"' % MAX_DEPTH


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """True for what a JSON object became."""
    return isinstance(value, dict)


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """True for what a JSON array became."""
    return isinstance(value, list)


def repaired(body: bytes) -> bytes:
    """``body`` as JSON that any reader takes.

    Lone surrogates and bytes that are no UTF-8 become U+FFFD, numbers that are none become text, and what is nested deeper than
    64 is cut with a mark.

    Raises:
        ValueError: This is no JSON even so, or too large to be looked at twice; the message says which.
    """
    if len(body) > MAX_REPAIR_BYTES:
        raise ValueError(f"malformed, and with {len(body)} bytes too large to be repaired")
    text = _flattened(body).decode("utf-8", "replace").removeprefix("\ufeff")
    try:
        content = json.loads(text, parse_constant=str)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return msgspec.json.encode(_scrubbed(content))


def _flattened(body: bytes) -> bytes:
    """``body`` with whatever lies deeper than `MAX_DEPTH` replaced by a note."""
    kept: list[bytes] = []
    depth = 0
    start = 0
    for token in _TOKENS.finditer(body):
        kind = body[token.start()]
        if kind in b"[{":
            depth += 1
            if depth == MAX_DEPTH + 1:
                kept += (body[start : token.start()], _CUT)
        elif kind in b"]}":
            if depth == MAX_DEPTH + 1:
                start = token.end()
            depth -= 1
    if not kept:
        return body
    # Inside of what is cut there is nothing to keep, and brackets that are never closed leave nothing behind them.
    return b"".join(kept) + (body[start:] if depth <= MAX_DEPTH else b"")


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return scrub(value)
    if is_object(value):
        return {scrub(key): _scrubbed(item) for key, item in value.items()}
    if is_list(value):
        return [_scrubbed(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return value
