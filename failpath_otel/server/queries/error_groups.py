"""The kinds of failures of a flow, as its page shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, select

from failpath_otel.events.wire import format_time
from failpath_otel.server.api.runs import ErrorGroup
from failpath_otel.server.store import tables
from failpath_otel.server.store.error_counts import OTHERS

SHOWN: Final = 50


def error_groups(
    connection: Connection, flow_id: int, step_keys: Mapping[int, str], labels: Mapping[str, str]
) -> tuple[list[ErrorGroup], int]:
    """The groups of a flow that were seen last, and how many failures are in none of these."""
    errors = tables.errors
    found = list(tables.fetch(connection, select(errors).where(errors.c.flow_id == flow_id)))
    found.sort(key=lambda row: (row.last_us, row.fingerprint), reverse=True)
    shown = [row for row in found if row.fingerprint != OTHERS][:SHOWN]
    groups: list[ErrorGroup] = []
    for row in shown:
        key = step_keys[row.step_id]
        groups.append(
            ErrorGroup(
                fingerprint=row.fingerprint,
                step_key=key,
                label=labels.get(key, key),
                name=row.name,
                message=row.message,
                count=row.n,
                first_seen_at=format_time(row.first_us * 1000),
                last_seen_at=format_time(row.last_us * 1000),
                last_run_id=row.last_run,
            )
        )
    return groups, sum(row.n for row in found) - sum(row.n for row in shown)
