"""A run in W3C baggage: how it reaches another service, and what of a stranger's baggage is believed."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote_plus

from opentelemetry import baggage
from opentelemetry.context import Context

from failpath_otel.events import semconv
from failpath_otel.events.text import MAX_ID_CHARS, scrub
from failpath_otel.events.translate import RunIdentity
from failpath_otel.notices import warn_once

MAX_PAIR_BYTES: Final = 4096
"""The longest member of a baggage header that OpenTelemetry's propagator passes on."""
MAX_HEADER_BYTES: Final = 8192
"""The longest baggage header that it reads."""


class _Refused:
    """How often baggage named a run that cannot be one."""

    count = 0


def refused() -> int:
    """How often, in this process, baggage that named a run was ignored because it cannot be one."""
    return _Refused.count


def read(within: Context | None) -> RunIdentity | None:
    """The run that the baggage of a context names; ``None`` where it names none, or none that can be one.

    Baggage comes from whoever calls: an id that is no text, empty, over 512 characters or with control characters is not
    believed. It is counted (`refused`), and warned of once.
    """
    flow_key = baggage.get_baggage(semconv.FLOW_SLUG, within)
    run_id = baggage.get_baggage(semconv.RUN_ID, within)
    if flow_key is None and run_id is None:
        return None
    if _is_id(flow_key) and _is_id(run_id):
        return RunIdentity(str(flow_key), str(run_id))
    _Refused.count += 1
    warn_once(
        "baggage",
        "baggage that names a run is ignored: %s and %s must both be text of 1 to %d printable characters",
        semconv.FLOW_SLUG,
        semconv.RUN_ID,
        MAX_ID_CHARS,
    )
    return None


def write(named: RunIdentity, within: Context) -> Context:
    """``within`` with the run in its baggage; all else in there stays.

    A run that a header cannot carry is left out, and so is the one that was there before: it would be taken for this one.
    """
    if not fits(named):
        warn_once("baggage-size", "run %r of flow %r does not fit into baggage: it stays in this process", *reversed(named))
        return remove(within)
    return baggage.set_baggage(semconv.RUN_ID, named.run_id, baggage.set_baggage(semconv.FLOW_SLUG, named.flow_key, within))


def remove(within: Context) -> Context:
    """``within`` without a run in its baggage."""
    for name in (semconv.FLOW_SLUG, semconv.RUN_ID):
        if baggage.get_baggage(name, within) is not None:
            within = baggage.remove_baggage(name, within)
    return within


def copy(source: Context, within: Context) -> Context:
    """``within`` with the run that the baggage of ``source`` names, or with none."""
    for name in (semconv.FLOW_SLUG, semconv.RUN_ID):
        value = baggage.get_baggage(name, source)
        within = baggage.remove_baggage(name, within) if value is None else baggage.set_baggage(name, value, within)
    return within


def in_header(header: str, named: RunIdentity | None) -> str:
    """The field ``baggage`` with this run in place of any other; what else is in there stays, as long as there is room.

    A run that a header cannot carry is left out.
    """
    ours = [] if named is None or not fits(named) else [(semconv.FLOW_SLUG, named.flow_key), (semconv.RUN_ID, named.run_id)]
    members = [f"{name}={quote_plus(value)}" for name, value in ours]
    kept = [
        member for member in header.split(",") if member.partition("=")[0].strip() not in (semconv.FLOW_SLUG, semconv.RUN_ID)
    ]
    # OpenTelemetry refuses a longer field as a whole, and of many members it takes the first.
    whole = ",".join([*members, *filter(str.strip, kept)])
    return whole if len(whole) <= MAX_HEADER_BYTES else ",".join(members)


def fits(named: RunIdentity) -> bool:
    """Whether a header carries both ids unchanged: propagators trim white space, and bound the length of a member."""
    return all(
        _is_id(value) and value == value.strip() and len(quote_plus(value)) + len(name) < MAX_PAIR_BYTES
        for name, value in ((semconv.FLOW_SLUG, named.flow_key), (semconv.RUN_ID, named.run_id))
    )


def _is_id(value: object) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_ID_CHARS
        and not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in value)
        and scrub(value) == value
    )
