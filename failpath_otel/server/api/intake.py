"""What the server's JSON API tells of itself and of what came in: frozen rows, by the same rules as `rows`."""

from __future__ import annotations

import msgspec


class ForwardState(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How events go on to another server, since the start.

    ``forwarded`` and ``rejected`` events were answered for by that server, ``held_back`` ones were left with their senders,
    who were asked to send them again, ``waiting`` ones are on their way. ``failing_since`` is null while it takes events.
    """

    to: str
    forwarded: int = 0
    rejected: int = 0
    held_back: int = 0
    waiting: int = 0
    failing_since: str | None = None
    last_error: str | None = None
    last_error_at: str | None = None


class LastRequest(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The newest request of a sender. ``items`` is null where its body was not read; ``agent`` is its ``User-Agent``."""

    at: str
    path: str
    status: int
    items: int | None
    agent: str | None


class Refusal(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Items, or requests as a whole, that were refused for one reason.

    ``status`` is the answer to the whole request; null where single items were refused and the others were taken.
    ``sample`` is the reason that the newest sender got; ``reason`` is the same without the values in it.
    """

    reason: str
    status: int | None
    count: int
    last_at: str
    sample: str


class Unknown(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A flow that came while others are declared, or, with a step key, a step that its declared flow does not know.

    ``nearest`` is the declared flow or step that is written most alike; null where none is.
    """

    flow: str
    step_key: str | None
    nearest: str | None


class IncompleteSample(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Spans or log records of one service that lack the attributes ``missing`` of the three that name a step."""

    missing: list[str]
    service: str | None
    count: int


class RetentionRow(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What is kept and what was deleted since the server's start.

    A limit is null where there is none. ``size_bytes`` is what the database takes, without free pages.
    """

    retain_seconds: float | None
    max_size_bytes: int | None
    size_bytes: int
    runs: int
    oldest_run_at: str | None
    deleted_runs: int


class IntakeCounts(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What came in since the server's start, which was at ``since``.

    ``rejected`` items broke the contract, ``unmapped`` spans and records are no steps, ``incomplete`` ones carry only
    some of the three identifying attributes. ``forward`` is null where events do not go on to another server; where they go
    on and none are kept here, those that it took are the ``accepted`` ones, and ``retention`` is null. ``refusals``,
    ``unknown`` and ``incomplete_samples`` hold at most 50 each.
    """

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    unmapped: int = 0
    incomplete: int = 0
    last_arrival_at: str | None = None
    forward: ForwardState | None = None
    since: str
    last_request: LastRequest | None = None
    refusals: list[Refusal] = []
    unknown: list[Unknown] = []
    incomplete_samples: list[IncompleteSample] = []
    retention: RetentionRow | None = None


class AboutRow(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What a page needs to know of the server.

    ``trace_url`` is a link to a trace with ``{trace_id}`` and perhaps ``{span_id}`` in it; null where none is set.
    ``keeps_runs`` is false for a bridge without a store: only what came in can be read there.
    """

    version: str
    keeps_runs: bool
    trace_url: str | None
    stuck_after_seconds: float
    quiet_seconds: float
