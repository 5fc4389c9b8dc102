"""Metadata made safe for JSON at the time of the call."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import math
import uuid
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failpath_otel.events.metadata import CUT_KEY, MAX_DEPTH, MAX_EVENT_BYTES, as_attributes, fit, render

any_text = st.text(st.characters(codec=None), max_size=40)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | any_text
    | st.binary(max_size=20)
    | st.datetimes()
    | st.decimals()
    | st.uuids()
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(any_text | st.integers(), inner, max_size=5) | st.tuples(inner, inner)
    ),
    max_leaves=30,
)
# A mark at the place of a cut, and one value that does not stop at the bound to the byte.
SLACK = 256


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Cart:
    id: str
    items: list[int]


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class HostileMapping(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("changed size during iteration")

    def __len__(self) -> int:
        return 1


def size(rendered: dict[str, Any]) -> int:
    return len(json.dumps(rendered, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode())


@given(st.dictionaries(any_text, values, max_size=8))
def test_whatever_is_given_what_comes_out_is_json_within_the_budget(metadata: dict[str, Any]) -> None:
    assert size(render(metadata)) <= MAX_EVENT_BYTES


@given(st.dictionaries(any_text, values, max_size=8), st.integers(min_value=600, max_value=2000))
def test_a_small_budget_is_kept_too(metadata: dict[str, Any], budget: int) -> None:
    assert size(render(metadata, budget)) <= budget + SLACK
    assert size(fit(render(metadata), budget)) <= budget + SLACK


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text().filter(lambda key: key != CUT_KEY), json_values, max_size=5))
def test_small_json_comes_out_as_it_went_in(metadata: dict[str, Any]) -> None:
    assert render(metadata) == metadata


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, "nan"),
        (math.inf, "inf"),
        (2**63, "0x8000000000000000"),
        pytest.param(10**300, hex(10**300), id="large integer"),
        (Colour.RED, "red"),
        (Cart("c1", [1, 2]), {"id": "c1", "items": [1, 2]}),
        ((1, 2), [1, 2]),
        ({1}, [1]),
        (b"\xffabc", "\\xffabc"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), "2026-01-02T00:00:00+00:00"),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("/a/b"), "/a/b"),
        (ValueError("no"), "ValueError: no"),
        ("a\ud800", "a\ufffd"),
        (Hostile(), "[Hostile cannot be rendered: RuntimeError]"),
        ([Hostile(), 1], ["[Hostile cannot be rendered: RuntimeError]", 1]),
        (HostileMapping(), "[HostileMapping cannot be rendered: RuntimeError]"),
        ({1: {None: "x"}}, {"1": {"None": "x"}}),
    ],
)
def test_what_is_no_json_is_rendered(value: object, expected: object) -> None:
    assert render({"value": value}) == {"value": expected}


def test_a_mapping_that_cannot_be_walked_costs_its_entries_and_never_raises() -> None:
    assert render(HostileMapping()) == {CUT_KEY: "[HostileMapping cannot be rendered: RuntimeError]"}


def test_what_is_no_mapping_at_all_never_raises() -> None:
    not_a_mapping: Any = ["a", "b"]
    assert render(not_a_mapping) == {CUT_KEY: "[list cannot be rendered: AttributeError]"}


def test_a_cycle_is_marked_where_it_closes() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    assert render({"ring": ring}) == {"ring": [1, "[cycle]"]}


def test_the_same_object_twice_beside_itself_is_no_cycle() -> None:
    shared = [1]
    assert render({"a": [shared, shared]}) == {"a": [[1], [1]]}


def test_nesting_is_cut_at_the_depth_that_is_promised() -> None:
    nested: Any = "bottom"
    for _ in range(MAX_DEPTH + 5):
        nested = {"down": nested}
    rendered: Any = render(nested)
    depth = 0
    while isinstance(rendered, dict):
        depth += 1
        rendered = rendered["down"]
    assert depth == MAX_DEPTH
    assert rendered == f"[cut: deeper than {MAX_DEPTH}]"


@pytest.mark.parametrize(
    "value",
    [
        "x" * 1_000_000,
        "\x00" * 1_000_000,
        '"' * 1_000_000,
        "\U0001f600" * 100_000,
        [[]] * 100_000,
        [{}] * 100_000,
        [""] * 100_000,
        [{"k" * 400: 1}] * 10_000,
        list(range(100_000)),
        {f"key-{number}": number for number in range(20_000)},
        {"k" * 100_000: 1},
        10**100_000,
    ],
    ids=["text", "control", "quotes", "wide", "lists", "dicts", "empty", "long-keys", "numbers", "entries", "key", "integer"],
)
def test_huge_values_are_cut_within_the_budget(value: object) -> None:
    rendered = render({"value": value, "after": "x"})
    assert size(rendered) <= MAX_EVENT_BYTES + SLACK


def test_cut_entries_are_counted_at_the_place() -> None:
    rendered = render({f"key-{number}": "x" * 200 for number in range(1000)})
    kept = len(rendered) - 1
    assert rendered[CUT_KEY] == f"[cut {1000 - kept} of 1000 entries]"


def test_what_is_rendered_no_longer_follows_the_callers_object() -> None:
    items = [1, 2]
    rendered = render({"items": items})
    items.append(3)
    assert rendered == {"items": [1, 2]}


def test_nothing_gives_nothing() -> None:
    assert render(None) == {}
    assert render({}) == {}


def test_fitting_leaves_what_fits_alone() -> None:
    metadata = {"a": 1, "b": ["x"]}
    assert fit(metadata, 10_000) == metadata


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x", "x"),
        (True, True),
        (1, 1),
        (1.5, 1.5),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [1, 2]),
        ([1, "a"], '[1,"a"]'),
        ([1, True], "[1,true]"),
        ([], "[]"),
        ({"a": {"b": None}}, '{"a":{"b":null}}'),
        ([[1]], "[[1]]"),
    ],
)
def test_an_attribute_is_a_primitive_or_a_list_of_one_kind_and_all_else_is_json_text(value: object, expected: object) -> None:
    assert as_attributes({"key": value}) == {"failpath.metadata.key": expected}


def test_none_has_no_place_on_a_span() -> None:
    assert as_attributes({"key": None}) == {}
