"""Names of Python for keys of any text."""

from __future__ import annotations

import keyword
import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failpath_otel.bindings.names import class_name, unique_names, variable_name


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("charge-card", "charge_card"),
        ("chargeCard", "charge_card"),
        ("Charge Card!", "charge_card"),
        ("orders/v2.create", "orders_v2_create"),
        ("HTTPCall", "httpcall"),
        ("class", "class_"),
        ("None", "none"),
        ("match", "match"),
        ("slug", "slug_"),
        ("__init__", "init"),
        ("3d-secure", "step_3d_secure"),
        ("///", "step"),
        ("", "step"),
        ("🙂", "step"),
        ("支付", "支付"),
        ("Überweisung prüfen", "überweisung_prüfen"),
        ("ﬁnish", "finish"),
    ],
)
def test_a_name_follows_the_rule(key: str, name: str) -> None:
    assert variable_name(key, "step", {"slug"}) == name


def test_a_flow_that_begins_with_a_digit_says_that_it_is_a_flow() -> None:
    assert variable_name("2fa", "flow") == "flow_2fa"


def test_all_that_would_be_alike_get_digits_of_their_own_key() -> None:
    names = unique_names(["a-b", "a_b", "c"], lambda key: variable_name(key, "step"))
    assert names == {"a-b": "a_b_d44362", "a_b": "a_b_648fa9", "c": "c"}


def test_a_key_that_has_the_name_of_anothers_digits_is_told_from_it() -> None:
    first = unique_names(["a-b", "a_b"], lambda key: variable_name(key, "step"))
    taken = first["a-b"]
    names = unique_names(["a-b", "a_b", taken], lambda key: variable_name(key, "step"))
    assert len(set(names.values())) == 3


@given(st.lists(st.text(min_size=1), unique=True, max_size=8), st.sampled_from(["flow", "step"]))
def test_any_text_gives_names_that_python_takes_and_tells_apart(keys: list[str], kind: str) -> None:
    names = unique_names(keys, lambda key: variable_name(key, kind, {"slug"}))
    as_python_reads_them = {unicodedata.normalize("NFKC", name) for name in names.values()}
    assert len(as_python_reads_them) == len(keys)
    for name in names.values():
        assert name.isidentifier()
        assert not keyword.iskeyword(name)
        assert not name.startswith("_")
        assert name != "slug"
        assert class_name(name).isidentifier()


@given(st.lists(st.text("ab-_/A1", min_size=1), unique=True, max_size=8), st.randoms())
def test_names_do_not_depend_on_the_order_of_keys(keys: list[str], shuffler: random.Random) -> None:
    shuffled = list(keys)
    shuffler.shuffle(shuffled)
    assert unique_names(keys, lambda key: variable_name(key, "step")) == unique_names(
        shuffled, lambda key: variable_name(key, "step")
    )
