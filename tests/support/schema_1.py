"""A database as the first version of the schema left it, made of one of today's: same rows, old tables."""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine, text

_TABLES = """
CREATE TABLE meta (key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (key));
CREATE TABLE flows (id {id} NOT NULL, slug TEXT NOT NULL, judged_by TEXT NOT NULL, PRIMARY KEY (id), UNIQUE (slug));
CREATE TABLE steps (
    id {id} NOT NULL, flow_id {id} NOT NULL, step_key TEXT NOT NULL, PRIMARY KEY (id), UNIQUE (flow_id, step_key)
);
CREATE TABLE runs (
    id {id} NOT NULL, flow_id {id} NOT NULL, run_key TEXT NOT NULL, stands SMALLINT NOT NULL, started_us BIGINT NOT NULL,
    ended_us BIGINT, last_arrival_us BIGINT NOT NULL, ranks TEXT NOT NULL, running_since TEXT, error_step TEXT,
    error_name TEXT, error_message TEXT, PRIMARY KEY (id)
);
CREATE UNIQUE INDEX runs_by_key ON runs (flow_id, run_key);
CREATE INDEX runs_by_flow ON runs (flow_id, stands, started_us, id);
CREATE INDEX runs_by_standing ON runs (stands, started_us, id);
CREATE INDEX runs_waiting ON runs (last_arrival_us, flow_id) WHERE stands + 0 = 3;
CREATE TABLE events (
    id {id} NOT NULL, event_id TEXT NOT NULL, run_id {id} NOT NULL, step_id {id} NOT NULL, status SMALLINT NOT NULL,
    time_us BIGINT NOT NULL, started_us BIGINT, trace_id TEXT, span_id TEXT, service TEXT, skip_reason TEXT, error_name TEXT,
    error_message TEXT, error_stack TEXT, metadata TEXT, PRIMARY KEY (id), UNIQUE (event_id)
);
CREATE INDEX ix_events_run_id ON events (run_id);
CREATE TABLE step_durations (step_id {id} NOT NULL, bucket SMALLINT NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (step_id, bucket));
CREATE TABLE run_durations (flow_id {id} NOT NULL, bucket SMALLINT NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (flow_id, bucket));
CREATE TABLE run_counts (flow_id {id} NOT NULL, stands SMALLINT NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (flow_id, stands));
"""
_NAMES = ("meta", "flows", "steps", "runs", "events", "step_durations", "run_durations", "run_counts")


def bring_back(db: str) -> None:
    """Puts what the database holds into the tables of version 1."""
    engine = create_engine(db if "://" in db else f"sqlite:///{db}")
    with engine.begin() as connection:
        held: dict[str, list[dict[str, Any]]] = {
            name: [dict(row) for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()] for name in _NAMES
        }
        for name in (*_NAMES, "errors"):
            connection.execute(text(f"DROP TABLE {name}"))
        for statement in _TABLES.format(id="INTEGER" if engine.dialect.name == "sqlite" else "BIGINT").split(";"):
            if statement.strip():
                connection.execute(text(statement))
        for name, rows in held.items():
            if rows:
                columns = list(rows[0])
                values = ", ".join(f":{column}" for column in columns)
                connection.execute(text(f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({values})"), rows)
        connection.execute(text("UPDATE meta SET value = '1' WHERE key = 'schema'"))
    engine.dispose()
