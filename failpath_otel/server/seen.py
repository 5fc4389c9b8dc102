"""What is noted of a sender's request while it is served, by those who serve it, for `noticed`."""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.types import Scope

_KEY: Final = "failpath.seen"


class Seen(msgspec.Struct):
    """A request. ``items`` is how many its body held, once that was read; ``refusal`` is what its sender is told."""

    items: int | None = None
    refusal: str | None = None


def begin(scope: Scope) -> Seen:
    """Has what is noted of this request kept."""
    seen = scope[_KEY] = Seen()
    return seen


def seen_of(scope: Scope) -> Seen:
    """Where to note something; where nobody asked for it, what is noted is forgotten."""
    found = scope.get(_KEY)
    return found if isinstance(found, Seen) else Seen()
