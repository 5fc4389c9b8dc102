"""The answer to ``POST /v1/events``."""

from __future__ import annotations

import msgspec


class Rejected(msgspec.Struct, frozen=True, rename="camel"):
    """An event that was refused. ``event_id`` is empty where it could not be read."""

    event_id: str
    reason: str


class Receipts(msgspec.Struct, frozen=True):
    """What became of a batch. ``accepted`` counts new events, ``duplicates`` those that were known."""

    accepted: int
    duplicates: int
    rejected: list[Rejected]
