"""The fold and what is derived from it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.story import EPOCH, event, flow_of

from failpath_otel.events.step import StepEvent
from failpath_otel.server.runs.derive import QUIET_US, RunState, derive
from failpath_otel.server.runs.fold import ORDER, FoldedAttempt, fact_of, fold
from failpath_otel.server.runs.histogram import Histogram, bucket_of
from failpath_otel.server.runs.projection import project
from failpath_otel.server.store.run_cache import CachedRun

START_US = EPOCH // 1000


def told(*events: StepEvent) -> dict[str, list[tuple[str, float, float | None]]]:
    """Each step's attempts as (status, start, end) in seconds into the story."""
    folded = fold(fact_of(one) for one in events)
    return {
        key: [
            (ORDER[a.status], (a.start_us - START_US) / 1e6, None if a.end_us is None else (a.end_us - START_US) / 1e6)
            for a in own
        ]
        for key, own in folded.items()
    }


def derived(*events: StepEvent, now: float = 0.0, steps: tuple[str, ...] = ("a", "b", "c"), **options: object) -> RunState:
    """The state of a run at a time, when the last event arrived at 0."""
    folded = fold(fact_of(one) for one in events)
    arguments: dict[str, object] = {
        "now_us": START_US + int(now * 1e6),
        "last_arrival_us": START_US,
        "ever_reported": frozenset(steps),
        "durations": {},
        "stuck_after_us": 60_000_000,
        **options,
    }
    flow = flow_of(*steps, edges=options.pop("edges", ())) if "edges" in options else flow_of(*steps)
    arguments.pop("edges", None)
    return derive(folded, flow.get("checkout"), **arguments)  # type: ignore[arg-type]


def reasons(state: RunState) -> dict[str, str | None]:
    return {step.step_key: step.missing_reason for step in state.steps if step.status == "missing"}


def test_running_and_outcome_of_one_span_are_one_attempt():
    events = [event("a", "running", 1, span="s"), event("a", "success", 3, span="s", started=1)]
    assert told(*events) == told(*reversed(events)) == {"a": [("success", 1, 3)]}


def test_an_outcome_beats_running_that_came_later_by_the_clock():
    assert told(event("a", "running", 9, span="s"), event("a", "success", 5, span="s")) == {"a": [("success", 9, 9)]}


def test_the_latest_outcome_of_an_attempt_wins():
    assert told(event("a", "error", 2, span="s", started=1), event("a", "success", 3, span="s", started=1)) == {
        "a": [("success", 1, 3)]
    }


def test_at_the_same_moment_an_error_outranks_a_success():
    assert told(event("a", "error", 2, span="s"), event("a", "success", 2, span="s"))["a"][0][0] == "error"


def test_different_spans_are_different_attempts_in_the_order_of_their_starts():
    late = event("a", "success", 9, span="x", started=5)
    assert told(late, event("a", "error", 3, span="y", started=1)) == {"a": [("error", 1, 3), ("success", 5, 9)]}


def test_a_start_and_an_outcome_recorded_by_hand_at_the_same_moment_are_one_attempt():
    events = [event("a", "running", 5, span="x"), event("a", "success", 5, span="y", started=5)]
    assert told(*events) == told(*reversed(events)) == {"a": [("success", 5, 5)]}


def test_an_outcome_recorded_by_hand_before_a_start_is_an_attempt_of_its_own():
    events = [event("a", "error", 4, span="y", started=4), event("a", "running", 5, span="x")]
    assert told(*events) == told(*reversed(events)) == {"a": [("error", 4, 4), ("running", 5, None)]}


def test_without_spans_running_after_an_outcome_opens_a_new_attempt():
    events = [event("a", status, at, span=None) for at, status in enumerate(("running", "error", "running", "success"))]
    assert told(*events) == {"a": [("error", 0, 1), ("success", 2, 3)]}


def test_without_spans_a_second_outcome_is_of_the_same_attempt():
    events = [event("a", "error", 1, span=None), event("a", "success", 2, span=None)]
    assert told(*events) == {"a": [("success", 2, 2)]}


def test_a_lone_running_event_is_an_attempt_without_an_end():
    (attempt,) = fold([fact_of(event("a", "running", 1))])["a"]
    assert (attempt.end_us, attempt.duration_us) == (None, None)


def test_an_outcome_whose_start_nobody_tells_has_no_duration():
    (attempt,) = fold([fact_of(event("a", "success", 1))])["a"]
    assert (attempt.start_us, attempt.end_us, attempt.duration_us) == (START_US + 10**6, START_US + 10**6, None)


def test_a_skip_takes_no_time():
    (attempt,) = fold([fact_of(event("a", "skipped", 1, started=1))])["a"]
    assert attempt.duration_us == 0


def test_an_outcome_without_length_ends_the_attempt_that_is_open():
    """`record_step("running")` and `record_step("success")` are two spans, and one attempt of a step."""
    by_hand = [event("a", "running", 1, span="s"), event("a", "success", 4, span="t", started=4)]
    assert told(*by_hand) == told(*reversed(by_hand)) == {"a": [("success", 1, 4)]}


def test_an_outcome_without_length_is_an_attempt_of_its_own_where_none_is_open():
    events = [event("a", "running", 1, span="s"), event("a", "error", 2, span="s", started=1)]
    events.append(event("a", "success", 4, span="t", started=4))
    assert told(*events) == {"a": [("error", 1, 2), ("success", 4, 4)]}


def test_an_outcome_without_length_does_not_end_what_began_later():
    events = [event("a", "success", 1, span="t", started=1), event("a", "running", 2, span="s")]
    assert told(*events) == {"a": [("success", 1, 1), ("running", 2, None)]}


def test_an_outcome_without_length_ends_the_latest_attempt_that_is_open():
    events = [event("a", "running", at, span=f"s{at}") for at in (1, 3)]
    events.append(event("a", "success", 5, span="t", started=5))
    assert told(*events) == told(*reversed(events)) == {"a": [("running", 1, None), ("success", 3, 5)]}


@pytest.mark.parametrize("order", [("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b")])
def test_the_first_error_of_a_run_is_the_earliest_whichever_arrives_first(order: tuple[str, ...]):
    failed = {key: event(key, "error", at) for at, key in enumerate("bca", start=1)}
    first = project(fold(fact_of(failed[key]) for key in order), frozenset()).first_error
    assert first is not None
    assert first.step_key == "b"


def test_of_two_contents_under_one_event_id_the_earlier_counts():
    events = [event("a", "success", 1, span=None, event_id="e"), event("a", "error", 2, span=None, event_id="e")]
    assert told(*events) == told(*reversed(events)) == {"a": [("success", 1, 1)]}


def test_a_second_try_that_took_time_does_not_end_the_first():
    events = [event("a", "running", 1, span="s"), event("a", "success", 4, span="t", started=3)]
    assert told(*events) == {"a": [("running", 1, None), ("success", 3, 4)]}


_EVENTS = st.lists(
    st.builds(
        event,
        step=st.sampled_from("ab"),
        status=st.sampled_from(ORDER),
        at=st.integers(0, 4),
        started=st.none() | st.integers(0, 4),
        span=st.sampled_from([None, "s", "t"]),
        # Few ids, so that one id also stands for different contents.
        event_id=st.none() | st.sampled_from(["one", "two"]),
    ),
    min_size=1,
    max_size=9,
)


def _shape(folded: dict[str, tuple[FoldedAttempt, ...]]) -> object:
    return sorted(folded.items())


@given(_EVENTS, st.randoms(use_true_random=False))
def test_any_order_with_duplicates_folds_to_one_result(events: list[StepEvent], chance: random.Random):
    again = [*events, *chance.choices(events, k=len(events))]
    chance.shuffle(again)
    assert _shape(fold(map(fact_of, again))) == _shape(fold(map(fact_of, events)))


@given(_EVENTS, st.integers(0, 9))
def test_what_arrives_late_heals_what_was_folded_before(events: list[StepEvent], cut: int):
    """The writer folds step by step as events arrive; that must end where folding all at once ends."""
    facts = [fact_of(one) for one in {one.event_id: one for one in events}.values()]
    known = CachedRun(1, 1, None)
    for part in (facts[:cut], facts[cut:]):
        known.add(part)
    assert known.steps == fold(facts)
    assert known.size == len(facts)


@given(_EVENTS)
def test_attempts_are_sane(events: list[StepEvent]):
    for attempts in fold(map(fact_of, events)).values():
        assert [a.start_us for a in attempts] == sorted(a.start_us for a in attempts)
        for attempt in attempts:
            assert (attempt.end_us is None) == (ORDER[attempt.status] == "running")
            assert attempt.end_us is None or attempt.end_us >= attempt.start_us
            assert attempt.duration_us is None or attempt.duration_us == (attempt.end_us or 0) - attempt.start_us
            assert attempt.decided_by.key in attempt.event_keys


@given(_EVENTS, st.integers(0, 100))
def test_the_projection_tells_the_same_status_as_the_detail(events: list[StepEvent], now: int):
    state = derived(*events, now=now, steps=("a", "b"))
    projection = project(fold(map(fact_of, events)), frozenset("ab"))
    stored = projection.state.name.lower()
    open_ = now * 10**6 <= QUIET_US
    assert state.status == {"complete": "success", "waiting": "running" if open_ else "incomplete"}.get(stored, stored)
    assert {key: ORDER[rank] for key, rank in projection.ranks.items()} == {
        step.step_key: step.status for step in state.steps if step.status != "missing"
    }
    assert (projection.ended_us is None) == any(step.status == "running" for step in state.steps)


def test_a_run_is_an_error_if_a_last_attempt_failed_even_while_another_step_runs():
    assert derived(event("a", "error"), event("b", "running")).status == "error"


def test_a_retry_that_succeeds_heals_the_run():
    events = [event("a", "error", 1), event("a", "success", 2), event("b"), event("c", "skipped")]
    assert derived(*events).status == "success"


def test_a_complete_run_is_a_success_at_once():
    assert derived(event("a"), event("b"), event("c")).status == "success"


def test_a_run_with_missing_steps_runs_through_the_quiet_window_and_then_is_incomplete():
    assert derived(event("a"), now=30).status == "running"
    assert derived(event("a"), now=30.1).status == "incomplete"


def test_a_flow_that_is_not_declared_misses_nothing():
    state = derive(
        fold([fact_of(event("x"))]),
        None,
        now_us=START_US,
        last_arrival_us=START_US,
        ever_reported=frozenset("x"),
        durations={},
        stuck_after_us=1,
    )
    assert (state.status, [step.declared for step in state.steps]) == ("success", [False])


def test_steps_stand_in_flow_order_and_discovered_ones_after_them_by_their_first_start():
    state = derived(event("z", at=1), event("y", at=2), event("c"), event("b"), event("a"))
    assert [step.step_key for step in state.steps] == ["a", "b", "c", "z", "y"]


def test_never_instrumented_comes_before_every_other_reason():
    assert reasons(derived(event("a", "error"), ever_reported=frozenset("a"))) == dict.fromkeys("bc", "never_instrumented")


def test_an_error_before_a_missing_step_is_its_reason_even_where_a_later_step_reported():
    assert reasons(derived(event("a", "error"), event("c"))) == {"b": "upstream_error"}


def test_a_missing_step_before_a_reported_one_was_passed_over():
    assert reasons(derived(event("a"), event("c"), now=99)) == {"b": "passed_over"}


def test_a_missing_step_is_not_yet_due_while_a_step_runs_or_the_quiet_window_is_open():
    assert reasons(derived(event("a", "running"), now=99)) == dict.fromkeys("bc", "not_yet")
    assert reasons(derived(event("a"), now=30)) == dict.fromkeys("bc", "not_yet")


def test_a_missing_step_is_overdue_when_nothing_else_explains_it():
    assert reasons(derived(event("a"), now=31)) == dict.fromkeys("bc", "overdue")


def test_edges_decide_what_is_before_and_after():
    edges = [("a", "b"), ("a", "c")]
    assert reasons(derived(event("c", "error"), now=99, edges=edges)) == {"a": "passed_over", "b": "overdue"}


def test_a_failure_that_a_later_attempt_healed_is_no_reason():
    assert reasons(derived(event("a", "error", 1), event("a", "success", 2), now=99)) == dict.fromkeys("bc", "overdue")


def _samples(n: int, duration_us: int) -> dict[str, Histogram]:
    return {"a": Histogram([(bucket_of(duration_us), n)])}


@pytest.mark.parametrize(
    ("samples", "duration_us", "limit"),
    [(19, 100_000_000, 60), (20, 1_000, 10), (20, 100_000_000, 300)],
    ids=["too few samples", "at least ten seconds", "three times the 95th percentile"],
)
def test_a_step_is_stuck_after_its_limit(samples: int, duration_us: int, limit: int):
    durations = _samples(samples, duration_us)
    before = derived(event("a", "running"), now=limit * 0.94, durations=durations)
    after = derived(event("a", "running"), now=limit * 1.06, durations=durations)
    assert (before.stuck, after.stuck) == (False, True)
    assert (after.status, [step.stuck for step in after.steps]) == ("running", [True, False, False])


def test_a_late_outcome_heals_a_stuck_step():
    events = [event("a", "running", span="s"), event("a", "success", 100, span="s")]
    assert not derived(*events, now=200).stuck


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=200), st.floats(0, 1))
def test_percentiles_are_within_five_percent(durations: list[int], share: float):
    histogram = Histogram((bucket_of(duration), 1) for duration in durations)
    ordered = sorted(durations)
    found = histogram.percentile(share)
    exact = next(value for rank, value in enumerate(ordered, 1) if rank >= share * len(ordered))
    assert exact * 0.95 <= found <= exact * 1.05
