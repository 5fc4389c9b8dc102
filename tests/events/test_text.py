"""Text, ids and keys made safe for the wire."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failpath_otel.events.text import MAX_ID_CHARS, MAX_TEXT_BYTES, as_text, clip, clip_middle, identifier, new_run_id, scrub

any_text = st.text(st.characters(codec=None), max_size=200) | st.text(st.characters(min_codepoint=0xD000, max_codepoint=0xE000))


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no")


@given(any_text)
def test_scrubbed_text_can_always_be_encoded(text: str) -> None:
    assert scrub(text).encode().decode() == scrub(text)


@given(st.text(max_size=200))
def test_text_without_surrogates_is_left_as_it_is(text: str) -> None:
    assert scrub(text) == text


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("a\ud800b", "a\ufffdb"),
        ("\udfff", "\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
        ("é\ud83dA", "é\ufffdA"),
    ],
)
def test_lone_surrogates_become_the_replacement_character_and_pairs_the_character_they_stand_for(
    given_text: str, expected: str
) -> None:
    assert scrub(given_text) == expected


@given(st.text(max_size=300), st.integers(min_value=64, max_value=400))
def test_clipped_text_fits_and_short_text_is_untouched(text: str, max_bytes: int) -> None:
    clipped = clip(text, max_bytes)
    assert len(clipped.encode()) <= max_bytes
    if len(text.encode()) <= max_bytes:
        assert clipped == text
    else:
        assert clipped.endswith(" characters]")


def test_the_mark_tells_how_many_characters_are_missing() -> None:
    clipped = clip("a" * 20_000)
    kept, _, mark = clipped.partition("…")
    assert mark == f" [cut {20_000 - len(kept)} characters]"
    assert MAX_TEXT_BYTES - 64 < len(clipped.encode()) <= MAX_TEXT_BYTES


@given(st.text(max_size=300), st.integers(min_value=64, max_value=400))
def test_text_clipped_in_the_middle_fits(text: str, max_bytes: int) -> None:
    assert len(clip_middle(text, max_bytes).encode()) <= max_bytes


def test_a_long_stack_keeps_its_entry_and_the_place_of_the_failure() -> None:
    stack = "Traceback\n" + "  frame\n" * 10_000 + "ValueError: no"
    clipped = clip_middle(stack)
    assert clipped.startswith("Traceback\n")
    assert clipped.endswith("ValueError: no")
    assert "… [cut " in clipped


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("req_123", "req_123"),
        (42, "42"),
        (None, ""),
        ("", ""),
        ("a\ud800", "a\ufffd"),
        (Unspeakable(), "<Unspeakable: str() failed>"),
    ],
)
def test_an_id_of_another_type_is_taken_as_its_text(value: object, expected: str) -> None:
    assert identifier(value) == expected


def test_an_id_of_512_characters_is_kept_and_a_longer_one_ends_in_a_hash() -> None:
    assert identifier("x" * MAX_ID_CHARS) == "x" * MAX_ID_CHARS
    longer = identifier("x" * (MAX_ID_CHARS + 1))
    assert len(longer) == MAX_ID_CHARS
    assert longer[-17] == "~"


@given(st.text(min_size=500, max_size=600), st.text(min_size=500, max_size=600))
def test_different_long_ids_stay_different(one: str, other: str) -> None:
    assert (identifier("x" * 500 + one) == identifier("x" * 500 + other)) == (one == other)


def test_text_of_a_value_whose_str_raises_names_its_type() -> None:
    assert as_text(Unspeakable()) == "<Unspeakable: str() failed>"


def test_new_run_ids_are_uuids_of_version_7_and_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(1_700_000_000_000_000_000, 1_700_000_000_100_000_000, 1_000_000))
    monkeypatch.setattr("failpath_otel.clock.time_ns", lambda: next(times))
    ids = [new_run_id() for _ in range(100)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 100
    assert {uuid.UUID(each).version for each in ids} == {7}
    assert {uuid.UUID(each).variant for each in ids} == {uuid.RFC_4122}
