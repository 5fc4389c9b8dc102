"""An option is declared once; signatures, docstrings and the resolved options say the same."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

import pytest

from failpath_otel import FailpathClient, FailpathSpanProcessor
from failpath_otel.config import OPTIONS, Options

OF_PROCESSOR = tuple(option for option in OPTIONS if option.of_processor)
BOTH = pytest.mark.parametrize(
    ("owner", "options"), [(FailpathClient, OPTIONS), (FailpathSpanProcessor, OF_PROCESSOR)], ids=["client", "processor"]
)


def documented(owner: type) -> dict[str, str]:
    """The arguments of a docstring of Google's form, each with its text in one line."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", inspect.getdoc(owner) or "", re.MULTILINE | re.DOTALL)
    assert section is not None
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w|\Z)", section[1], re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in entries}


@BOTH
def test_the_signature_takes_the_options_in_their_order_with_their_types(owner, options):
    parameters = list(inspect.signature(owner.__init__).parameters.values())[1:]
    # The compiler writes annotations with single quotes.
    expected = [(option.name, f"{option.type} | None".replace('"', "'")) for option in options]
    assert [(one.name, one.annotation) for one in parameters] == expected
    assert {one.default for one in parameters} == {None}


@BOTH
def test_the_docstring_says_of_each_option_what_the_table_says(owner, options):
    # A docstring marks code by two backticks, the table by one.
    assert {name: text.replace("``", "`") for name, text in documented(owner).items()} == {
        option.name: option.doc for option in options
    }


def test_the_resolved_options_are_those_of_the_table():
    assert [one.name for one in fields(Options)] == [option.name for option in OPTIONS]


def test_an_environment_variable_is_named_after_its_option():
    named = {option.name: option.env for option in OPTIONS if option.env is not None}
    assert named.pop("endpoint") == "FAILPATH_DEV_ENDPOINT"  # the name that the TypeScript SDK has
    assert named == {name: f"FAILPATH_{name.upper()}" for name in named}
