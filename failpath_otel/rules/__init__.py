"""Span rules: spans of any library become steps without touching code. Pure, save that `file` reads a file.

`rule` has the rules as data, `file` the same as JSON, `matching` and `outcome` what they say of a span; the processor inside a
service and the server behind a Collector use these alike.
"""

from __future__ import annotations

from failpath_otel.rules.file import find_rules_file, load_rules, parse_rules
from failpath_otel.rules.matching import CompiledRules
from failpath_otel.rules.rule import ErrorWhen, SkipWhen, SpanRule, SpanRules
from failpath_otel.rules.terms import Attribute, Baggage, Glob, Present, Range, Regex

__all__ = [
    "Attribute",
    "Baggage",
    "CompiledRules",
    "ErrorWhen",
    "Glob",
    "Present",
    "Range",
    "Regex",
    "SkipWhen",
    "SpanRule",
    "SpanRules",
    "find_rules_file",
    "load_rules",
    "parse_rules",
]
