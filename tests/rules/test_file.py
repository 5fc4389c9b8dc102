"""spans.json: what is read, what is refused and where, and the schema that says the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from failpath_otel import (
    Attribute,
    Baggage,
    ConfigError,
    ErrorWhen,
    Glob,
    Present,
    Range,
    Regex,
    SkipWhen,
    SpanRule,
    SpanRules,
)
from failpath_otel.rules import find_rules_file, load_rules, parse_rules
from failpath_otel.rules.file import SCHEMA_PATH

SCHEMA = jsonschema.Draft202012Validator(json.loads(SCHEMA_PATH.read_text(encoding="utf-8")))
STEP: dict[str, Any] = {"flow": "checkout", "step": "pay", "run": ["trace"]}
CONDITIONS = {
    "a": "x",
    "b": [1, True, "y"],
    "c": {"glob": "*"},
    "d": {"regex": "^x"},
    "e": {"present": False},
    "f": {"at_least": 1, "at_most": 2.5},
}
FULL: dict[str, Any] = {
    "description": "payments",
    "name": {"regex": "^POST"},
    "kind": ["server", "consumer"],
    "scope": {"glob": "opentelemetry.*"},
    "attributes": CONDITIONS,
    "flow": {"attribute": "app.flow"},
    "step": {"attribute": "app.step"},
    "run": [{"attribute": "order.id"}, {"baggage": "order"}, "parent", "baggage", "trace"],
    "metadata": {"route": "http.route"},
    "error": {"when": {"code": {"at_least": 500}}, "name": "HTTP {code}", "message": "no"},
    "success": {"code": 404},
    "skipped": {"when": {"x": True}, "reason": "{x}"},
    "running": False,
}
GOOD = [FULL, STEP, {**STEP, "metadata": ["a"]}, {"name": "GET /health", "ignore": True}, {"step": "s", "run": ["parent"]}]

# What is wrong → the path that the message names, and a part of it.
BAD: dict[str, tuple[Any, str, str]] = {
    "no object": ([], "$", "must be an object"),
    "no version": ({"rules": []}, "$.version", "must be 1"),
    "another version": ({"version": 2, "rules": []}, "$.version", "must be 1, got 2"),
    "no rules": ({"version": 1}, "$.rules", "must be a list"),
    "unknown key": ([{**STEP, "atributes": {}}], "$.rules[0].atributes", "did you mean attributes?"),
    "null": ([{**STEP, "name": None}], "$.rules[0].name", "must not be null"),
    "inner null": ([{**STEP, "error": {"name": None}}], "$.rules[0].error.name", "must not be null"),
    "no step": ([{"flow": "f", "run": ["trace"]}], "$.rules[0].step", "is missing"),
    "no flow": ([{"step": "s", "run": ["parent", "trace"]}], "$.rules[0].flow", "is missing"),
    "no run": ([{"flow": "f", "step": "s"}], "$.rules[0].run", "at least one source"),
    "a run of no kind": ([STEP, {**STEP, "run": ["order.id"]}], "$.rules[1].run[0]", "is written"),
    "empty name": ([{**STEP, "name": ""}], "$.rules[0].name", "not empty"),
    "two ways to match": ([{**STEP, "name": {"glob": "a", "regex": "b"}}], "$.rules[0].name", "exactly one"),
    "kind": ([{**STEP, "kind": "sever"}], "$.rules[0].kind", "did you mean server?"),
    "kinds": ([{**STEP, "kind": ["server", 1]}], "$.rules[0].kind[1]", "must be one of"),
    "a condition": (
        [{**STEP, "attributes": {"http.route": {"like": "x"}}}],
        '$.rules[0].attributes["http.route"].like',
        "known",
    ),
    "a range": ([{**STEP, "attributes": {"n": {"at_least": "5"}}}], "$.rules[0].attributes.n.at_least", "a number"),
    "no values": ([{**STEP, "attributes": {"n": []}}], "$.rules[0].attributes.n", "at least one value"),
    "long step": ([{**STEP, "step": "s" * 513}], "$.rules[0].step", "512"),
    "metadata": ([{**STEP, "metadata": "a"}], "$.rules[0].metadata", "must be a list"),
    "success": ([{**STEP, "success": {}}], "$.rules[0].success", "at least one condition"),
    "ignored with a step": ([{**STEP, "ignore": True}], "$.rules[0].flow", "has no meaning"),
    "running": ([{**STEP, "running": 1}], "$.rules[0].running", "true or false"),
    "version true": ({"version": True, "rules": []}, "$.version", "must be 1"),
    # What a schema cannot say.
    "regex": ([{**STEP, "name": {"regex": "("}}], "$.rules[0].name.regex", "regular expression"),
    "never": ([{**STEP, "attributes": {"n": {"at_least": 5, "at_most": 4}}}], "$.rules[0].attributes.n", "never"),
}
BEYOND_SCHEMA = {"regex", "never"}


def as_file(content: Any) -> Any:
    return {"version": 1, "rules": content} if isinstance(content, list) and content else content


def test_everything_in_a_file_has_its_like_in_python() -> None:
    (rule,) = parse_rules({"version": 1, "$schema": "spans.schema.json", "rules": [FULL]})
    assert rule == SpanRule(
        description="payments",
        name=Regex("^POST"),
        kind=("server", "consumer"),
        scope=Glob("opentelemetry.*"),
        attributes={
            "a": "x",
            "b": (1, True, "y"),
            "c": Glob("*"),
            "d": Regex("^x"),
            "e": Present(False),
            "f": Range(1, 2.5),
        },
        flow=Attribute("app.flow"),
        step=Attribute("app.step"),
        run=(Attribute("order.id"), Baggage("order"), "parent", "baggage", "trace"),
        metadata={"route": "http.route"},
        error=ErrorWhen({"code": Range(at_least=500)}, "HTTP {code}", "no"),
        success={"code": 404},
        skipped=SkipWhen({"x": True}, "{x}"),
        running=False,
    )


@pytest.mark.parametrize("rule", GOOD)
def test_what_is_read_is_right_by_the_schema(rule: Any) -> None:
    assert len(parse_rules({"version": 1, "rules": [rule]})) == 1
    SCHEMA.validate({"version": 1, "rules": [rule]})


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_told_with_file_line_and_path_and_is_wrong_by_the_schema(case: str, tmp_path: Path) -> None:
    content, where, reason = BAD[case]
    path = tmp_path / "spans.json"
    path.write_text(json.dumps(as_file(content), indent=1), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_rules(path)
    message = str(caught.value)
    assert f": {where} " in message
    assert reason in message
    assert message.startswith(f"{path}:")
    assert SCHEMA.is_valid(as_file(content)) is (case in BEYOND_SCHEMA)


def test_the_line_is_that_of_the_value(tmp_path: Path) -> None:
    path = tmp_path / "spans.json"
    text = '{\n "version": 1,\n "rules": [\n  {"ignore": true},\n  {\n   "name": "a,]}",\n   "kind": "sever"\n  }\n ]\n}\n'
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    with pytest.raises(ConfigError, match=rf"{path}:7: \$\.rules\[1\]\.kind must be one of"):
        load_rules(path)
    path.write_text('{"version": 1,\n"rules": [,]}', encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"{path}:2: span rules are not valid JSON"):
        load_rules(path)


@pytest.mark.parametrize("raw", [b"", b"\xff", b"[" * 100_000, b'{"version": NaN}', b'{"version": 1, "rules": [{"a'])
def test_a_file_that_is_no_json_is_refused_with_its_name(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "spans.json"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match=str(path)):
        load_rules(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_rules(tmp_path / "none.json")


def test_the_file_is_looked_for_upward(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / ".failpath").mkdir()
    (tmp_path / ".failpath" / "spans.json").write_text('{"version": 1, "rules": []}')
    assert find_rules_file(inner) == tmp_path / ".failpath" / "spans.json"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "sever"}, "SpanRule: kind must be one of"),
        ({"run": "trace"}, "run must be a list"),
        ({"attributes": {"a": {"present": True}}}, r"attributes\.a must be text"),
        ({"error": {"when": {}}}, "must be an ErrorWhen"),
        ({"name": Regex("[")}, r"name\.regex must be a regular"),
        ({"attributes": {"a": Range(float("nan"))}}, "a number"),
    ],
)
def test_a_rule_in_python_is_held_to_the_same(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SpanRule(**{**STEP, **fields})


def test_rules_are_frozen_and_keep_their_order() -> None:
    rules = SpanRules((SpanRule(**STEP), SpanRule(name="x", ignore=True)))
    assert [rule.ignore for rule in rules] == [False, True]
    with pytest.raises(AttributeError):
        rules.path = None  # type: ignore[misc]
