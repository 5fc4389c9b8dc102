"""docs/span-rules.md: its files are read, and its table has every field of a rule."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from support.markdown import blocks, table

from failpath_otel import SpanRule
from failpath_otel.rules import parse_rules

DOCUMENT = Path(__file__).parents[2] / "docs" / "span-rules.md"


def test_the_files_that_are_shown_can_be_used() -> None:
    shown = [block for block in blocks(DOCUMENT) if block.language == "json"]
    assert len(shown) == 5
    for block in shown:
        assert len(parse_rules(json.loads(block.body))) > 0


def test_every_field_of_a_rule_is_in_the_table() -> None:
    listed = {row[0].strip("`") for row in table(DOCUMENT, "## A rule")}
    assert listed == {field.name for field in dataclasses.fields(SpanRule)}
