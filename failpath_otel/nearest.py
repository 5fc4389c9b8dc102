"""The nearest of the names that are known, for whoever mistyped one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import islice
from typing import Final

ALIKE: Final = 0.6
"""Of 1; below, a suggestion is rather a guess."""
_MAX_KNOWN: Final = 500
_MAX_CHARS: Final = 100
_JOINTS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[\s_.:/-]+")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that is most like ``name``; ``None`` where none is like it.

    Case, and how words are joined, make no difference: ``chargeCard`` is ``charge-card``. Of two that are alike it is the
    first of ``known`` (of a set, of the sorted). Only the first 500 names are looked at, so that it takes milliseconds.
    """
    ordered = sorted(known) if isinstance(known, set | frozenset) else known
    return _nearest(name[:_MAX_CHARS], tuple(islice(ordered, _MAX_KNOWN)))


@lru_cache(maxsize=1024)
def _nearest(name: str, known: tuple[str, ...]) -> str | None:
    matcher = SequenceMatcher(autojunk=False, b=_plain(name))
    best: tuple[float, str] | None = None
    for candidate in known:
        matcher.set_seq1(_plain(candidate[:_MAX_CHARS]))
        least = ALIKE if best is None else best[0]
        if matcher.real_quick_ratio() < least or matcher.quick_ratio() < least:
            continue
        ratio = matcher.ratio()
        if ratio >= ALIKE and (best is None or ratio > best[0]):
            best = (ratio, candidate)
    return None if best is None else best[1]


def _plain(name: str) -> str:
    return _JOINTS.sub("-", name).lower()
