"""The nearest of the names that are known, for whoever mistyped one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like ``name``, or ``None`` where none is like it. Case does not count."""
    by_folded: dict[str, str] = {}
    for other in sorted(known):
        by_folded.setdefault(other.casefold(), other)
    found = get_close_matches(name.casefold(), by_folded, n=1)
    return by_folded[found[0]] if found else None
