"""Notes on a sender's request, made by those who serve it, for `intake.diagnostics`."""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.types import Scope

_KEY: Final = "failpath.notes"


class RequestNotes(msgspec.Struct):
    """A request. ``items`` is how many its body held, once that was read; ``refusal`` is the reason that its sender got."""

    items: int | None = None
    refusal: str | None = None


def begin(scope: Scope) -> RequestNotes:
    """Has what is noted of this request kept."""
    notes = scope[_KEY] = RequestNotes()
    return notes


def notes_of(scope: Scope) -> RequestNotes:
    """Where to note something; where nobody asked for it, what is noted is forgotten."""
    found = scope.get(_KEY)
    return found if isinstance(found, RequestNotes) else RequestNotes()
