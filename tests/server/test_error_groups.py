"""Failures by kind: what is one kind, that each counts once, and that groups stay few and go with their events."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import databases
from support.story import Clock, event, eventually, house, run

from failpath_otel.events.step import StepError
from failpath_otel.server.queries import error_groups
from failpath_otel.server.runs.fingerprint import fingerprint, normal
from failpath_otel.server.store import error_counts, retention
from failpath_otel.server.store.retention import Retention

db, postgres_url, query = databases.db, databases.postgres_url, databases.query

MOST_SECONDS = 1.0
"""Of this thread's processor time, which others on the machine do not lengthen: a hundred times what is needed, and far
less than an expression takes that goes back over what it has read."""


def failure(message, name="Declined", step="a", at=1.0, run="r1", **more):
    return event(step, "error", at, run=run, error=StepError(name, message), **more)


def groups(home):
    return [(group.step_key, group.name, group.message, group.count) for group in home.queries.flow("checkout").errors]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("connection to 10.0.0.7:5432 refused", "connection to <ip> refused"),
        ("connection to [2001:db8::1]:443 refused", "connection to <ip> refused"),
        ("order 4711 is gone", "order <n> is gone"),
        ("took 3.5 s, 1,024 rows, at 12:30:05", "took <n> s, <n> rows, at <n>"),
        ("on 2026-01-31T09:30:00.125Z", "on <time>"),
        ("S3 and EC2 failed, HTTP 503", "S<n> and EC<n> failed, HTTP <n>"),
        ("timeout after 1500ms", "timeout after <n>ms"),
        ("at 0x7f3a00 in deadbeef01", "at <hex> in <hex>"),
        ("facade decade", "facade decade"),
        ("user 123e4567-e89b-12d3-a456-426614174000 unknown", "user <uuid> unknown"),
        ("customer cus_9s8d7f6a5 unknown", "customer <id> unknown"),
        ("no such table: 'orders_7' for \"a b\" and `c`", "no such table: <text> for <text> and <text>"),
        ("“curly” and «angled» quotes", "<text> and <text> quotes"),
        ("can't reach the shop's queue", "can't reach the shop's queue"),
        ("GET https://api.example/v1/x?y=1 failed", "GET <url> failed"),
        ("mail to a.b+c@example.com bounced", "mail to <email> bounced"),
        ("\n  first line\nsecond line 5", "first line"),
        ("", ""),
        ("決済 42 件", "決済 <n> 件"),
    ],
)
def test_what_differs_from_case_to_case_becomes_a_placeholder(message, shown):
    assert normal(message) == shown


def test_step_and_name_tell_kinds_apart_and_numbers_do_not():
    assert fingerprint("a", "E", "order 1") == fingerprint("a", "E", "order 22")
    assert len({fingerprint(*kind) for kind in (("a", "E", "m"), ("b", "E", "m"), ("a", "F", "m"), ("a", "E", "n"))}) == 4


@given(st.text(max_size=400) | st.text(alphabet="0aA_'\"`.:/@-[ ", max_size=400))
def test_any_message_has_a_fingerprint_at_once(message):
    before = time.thread_time()
    normal(message)
    assert time.thread_time() - before < MOST_SECONDS


@pytest.mark.parametrize("part", ["1a", "'", "`a", "a@", "1.", "[:", "a://", "“", "_1", "a.", "+a1@"])
def test_no_message_takes_long(part):
    before = time.thread_time()
    for _ in range(10):
        normal(part * 10_000)
    assert time.thread_time() - before < MOST_SECONDS


def test_failures_are_counted_once_with_their_first_and_newest(db):
    async def story():
        async with house(db) as home:
            first = failure("order 1 refused", at=5, event_id="e1")
            assert await home.tell(first, first, failure("order 2 refused", at=9, run="r2")) == (2, 1)
            await home.tell(first, failure("order 3 refused", at=2, run="r3"), failure("no stock", at=3, step="b", run="r3"))
            found = home.queries.flow("checkout").errors
            assert groups(home) == [("a", "Declined", "order 2 refused", 3), ("b", "Declined", "no stock", 1)]
            assert (found[0].label, found[0].last_run_id) == ("A", "r2")
            times = [home.queries.run("checkout", name).steps[0].started_at for name in ("r3", "r2")]
            assert [found[0].first_seen_at, found[0].last_seen_at] == times
            assert home.queries.flow("checkout").other_errors == 0

    run(story())


def test_the_order_and_the_batches_of_arrival_make_no_difference(db, query):
    chance = random.Random(3)
    events = [
        failure(f"{chance.choice(['refused', 'expired', 'gone'])} {n}", step=chance.choice("ab"), at=n, run=f"r{n}")
        for n in range(60)
    ]

    async def story(order, size):
        async with house(db) as home:
            for start in range(0, len(order), size):
                await home.tell(*order[start : start + size])
            found = home.queries.flow("checkout").errors
        for table in ("events", "runs", "flows", "steps", "errors", "run_counts", "run_durations", "step_durations"):
            query(f"DELETE FROM {table}")
        return found

    once = run(story(events, 60))
    assert sum(group.count for group in once) == 60
    for size in (1, 7):
        shuffled = chance.sample([*events, *events[:10]], 70)
        assert run(story(shuffled, size)) == once


def test_a_transaction_that_fails_counts_no_failure(db, monkeypatch):
    from sqlalchemy.exc import OperationalError

    from failpath_otel.server.store.ingest import StoreUnavailable

    async def story():
        async with house(db) as home:
            await home.tell(failure("x"))
            with monkeypatch.context() as patched:

                def fail(*_):
                    raise OperationalError("COMMIT", {}, Exception("disk is full"))

                write = error_counts.ErrorDelta.write
                patched.setattr(error_counts.ErrorDelta, "write", lambda *a: (write(*a), fail()))
                with pytest.raises(StoreUnavailable):
                    await home.tell(failure("x", run="r2"))
            assert await home.tell(failure("x", run="r3")) == (1, 0)
            assert groups(home) == [("a", "Declined", "x", 2)]

    run(story())


def test_groups_stay_few_and_no_failure_is_lost_among_them(db, monkeypatch):
    monkeypatch.setattr(error_counts, "MAX_GROUPS", 5)
    monkeypatch.setattr(error_groups, "SHOWN", 3)
    words = [f"{a}{b}" for a in "abcde" for b in "xyz"]

    async def story():
        async with house(db) as home:
            for at, word in enumerate(words):
                await home.tell(failure(word, at=at, run=f"r{at}"), failure(word, at=at, run=f"s{at}"))
            # One that went to the others comes again, and one that stayed comes again.
            await home.tell(failure(words[0], at=50, run="t1"), failure(words[-1], at=51, run="t2"))
            found = home.queries.flow("checkout")
            assert groups(home) == [
                ("a", "Declined", words[-1], 3),
                ("a", "Declined", words[0], 1),
                ("a", "Declined", words[-2], 2),
            ]
            assert sum(group.count for group in found.errors) + found.other_errors == 2 * len(words) + 2
            # More kinds at once than there may be.
            await home.tell(*(failure(f"once {word}", at=60 + n, run=f"u{n}") for n, word in enumerate(words)))
            found = home.queries.flow("checkout")
            assert sum(group.count for group in found.errors) + found.other_errors == 3 * len(words) + 2

    run(story())


def test_groups_go_with_the_events_that_they_are_of(db, query, monkeypatch):
    monkeypatch.setattr(retention, "ROUND_SECONDS", 0.01)
    monkeypatch.setattr(error_counts, "MAX_GROUPS", 3)

    async def story():
        clock = Clock()
        async with house(db, clock=clock, retention=Retention(max_age_seconds=3600)) as home:
            for at, word in enumerate("uvwxyz"):
                await home.tell(failure(f"{word} {at}", at=at, run=f"old-{word}"))
            clock.at(3000)
            await home.tell(failure("z 77", at=3000, run="young"), failure("u 78", at=3001, run="young"))
            found = home.queries.flow("checkout")
            assert sum(group.count for group in found.errors) + found.other_errors == 8
            clock.at(3700)
            await eventually(lambda: query("SELECT count(*) FROM events") == [(2,)])
            assert groups(home) == [("a", "Declined", "u 78", 1), ("a", "Declined", "z 77", 1)]
            assert home.queries.flow("checkout").other_errors == 0
            assert query("SELECT count(*) FROM errors") == [(2,)]

    run(story())
