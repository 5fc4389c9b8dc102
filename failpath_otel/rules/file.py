"""``spans.json``: rules as a file. Each fault is reported with the file, the line and the JSON path."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

from failpath_otel.errors import ConfigError
from failpath_otel.nearest import nearest
from failpath_otel.rules.checked import RUN_WORDS, Fault, Place, check_rule, is_sequence, shown
from failpath_otel.rules.place_in_json import line_of
from failpath_otel.rules.rule import ErrorWhen, SkipWhen, SpanRule, SpanRules
from failpath_otel.rules.terms import Attribute, Baggage, Condition, Glob, Present, Range, Regex

DEFAULT_PATH: Final = Path(".failpath") / "spans.json"
SCHEMA_PATH: Final = Path(__file__).with_name("spans.schema.json")
"""The JSON Schema of the file."""
VERSION: Final[int] = 1
MAX_BYTES: Final = 4 * 1024 * 1024

_FIELDS: Final = (
    *("description", "name", "kind", "scope", "attributes", "flow", "step", "run", "metadata", "error", "success"),
    *("skipped", "ignore", "running"),
)
_OF_IGNORED: Final = ("description", "name", "kind", "scope", "attributes", "ignore", "running")


def find_rules_file(start: Path) -> Path | None:
    """The nearest ``.failpath/spans.json``, looked for in ``start`` and then in each folder above it."""
    start = start.absolute()
    return next((path for folder in (start, *start.parents) if (path := folder / DEFAULT_PATH).is_file()), None)


def load_rules(path: Path) -> SpanRules:
    """Reads a file of rules.

    Raises:
        ConfigError: The file cannot be read, or something in it cannot be used; the message has file, line and JSON path.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"span rules {path} cannot be read: {error.strerror or error}") from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"span rules {path} are larger than {MAX_BYTES} bytes")
    try:
        text = raw.removeprefix(codecs.BOM_UTF8).decode()
        content: Any = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: span rules are not valid JSON: {error.msg}, column {error.colno}") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"span rules {path} are not valid JSON: {error}") from error
    try:
        return SpanRules(_parsed(content), path)
    except Fault as fault:
        where = shown(fault.place)
        raise ConfigError(f"{path}:{line_of(text, fault.place)}: $.{where} {fault.reason}".replace("$. ", "$ ")) from None


def parse_rules(content: Any) -> SpanRules:
    """The rules in decoded JSON.

    Raises:
        ConfigError: Something in it cannot be used; the message has the JSON path.
    """
    try:
        return SpanRules(_parsed(content))
    except Fault as fault:
        raise ConfigError(f"span rules: {fault}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _parsed(content: Any) -> tuple[SpanRule, ...]:
    outer = _object((), content, ("version", "rules", "$schema"))
    version: object = outer.get("version")
    if isinstance(version, bool) or version != VERSION:
        raise Fault(("version",), f"must be {VERSION}, got {version!r}")
    if not isinstance(outer.get("$schema", ""), str):
        raise Fault(("$schema",), "must be text")
    return tuple(_rule(("rules", position), entry) for position, entry in enumerate(_list(("rules",), outer.get("rules"))))


def _rule(place: Place, entry: Any) -> SpanRule:
    fields = _object(place, entry, _FIELDS)
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if fields.get("ignore") is True and name not in _OF_IGNORED:
            raise Fault((*place, name), "has no meaning in a rule with ignore, which leaves its spans out")
        read = _READERS.get(name)
        values[name] = value if read is None else read((*place, name), value)
    if not isinstance(values.get("description", ""), str):
        raise Fault((*place, "description"), "must be text")
    # The rule would say itself what is wrong, but not where in the file.
    try:
        check_rule(SimpleNamespace(**{**_DEFAULTS, **values}))
    except Fault as fault:
        raise Fault((*place, *fault.place), fault.reason) from None
    return SpanRule(**values)


def _text(place: Place, value: Any) -> Any:
    if isinstance(value, dict):
        return _one_of(place, cast("dict[str, Any]", value), {"glob": Glob, "regex": Regex})
    return value


def _kind(_: Place, value: Any) -> Any:
    return tuple(value) if is_sequence(value) else value


def _conditions(place: Place, value: Any) -> dict[str, Condition]:
    return {name: _condition((*place, name), entry) for name, entry in _object(place, value).items()}


def _condition(place: Place, value: Any) -> Any:
    if is_sequence(value):
        return tuple(value)
    if not isinstance(value, dict):
        return value
    entry = cast("dict[str, Any]", value)
    if {"at_least", "at_most"} & entry.keys():
        return Range(**_object(place, entry, ("at_least", "at_most")))
    return _one_of(place, entry, {"glob": Glob, "regex": Regex, "present": Present}, also=("at_least", "at_most"))


def _key(place: Place, value: Any) -> Any:
    return _one_of(place, cast("dict[str, Any]", value), {"attribute": Attribute}) if isinstance(value, dict) else value


def _run(place: Place, value: Any) -> tuple[Any, ...]:
    return tuple(_source((*place, position), entry) for position, entry in enumerate(_list(place, value)))


def _source(place: Place, value: Any) -> Any:
    if isinstance(value, dict):
        return _one_of(place, cast("dict[str, Any]", value), {"attribute": Attribute, "baggage": Baggage})
    if isinstance(value, str) and value not in RUN_WORDS:
        close = nearest(value, RUN_WORDS)
        hint = f"did you mean {close}?" if close else f'an attribute is written {{"attribute": "{value}"}}'
        raise Fault(place, f"must be one of {', '.join(RUN_WORDS)}, an attribute or a baggage entry, got {value!r}; {hint}")
    return value


def _error(place: Place, value: Any) -> ErrorWhen:
    fields = _object(place, value, ("when", "name", "message"))
    return ErrorWhen(_conditions((*place, "when"), fields.get("when", {})), fields.get("name"), fields.get("message"))


def _skipped(place: Place, value: Any) -> SkipWhen:
    fields = _object(place, value, ("when", "reason"))
    return SkipWhen(_conditions((*place, "when"), fields.get("when", {})), fields.get("reason"))


_READERS: Final[Mapping[str, Callable[[Place, Any], Any]]] = {
    "name": _text,
    "scope": _text,
    "kind": _kind,
    "attributes": _conditions,
    "flow": _key,
    "step": _key,
    "run": _run,
    "error": _error,
    "success": _conditions,
    "skipped": _skipped,
}
_ignored: Final = SpanRule(ignore=True)
_DEFAULTS: Final[Mapping[str, Any]] = {name: getattr(_ignored, name) for name in _FIELDS} | {"ignore": False}


def _one_of(place: Place, entry: dict[str, Any], kinds: Mapping[str, Callable[[Any], Any]], also: tuple[str, ...] = ()) -> Any:
    _object(place, entry, (*kinds, *also))
    if len(entry) != 1:
        raise Fault(place, f"must have exactly one of {', '.join(kinds)}")
    ((name, value),) = entry.items()
    return kinds[name](value)


def _object(place: Place, value: Any, known: Iterable[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Fault(place, f"must be an object, got {_shown_value(value)}")
    entry = cast("dict[str, Any]", value)
    names = None if known is None else tuple(known)
    for name, inner in entry.items():
        if names is not None and name not in names:
            close = nearest(name, names)
            raise Fault(
                (*place, name), "is not known; " + (f"did you mean {close}?" if close else f"known: {', '.join(names)}")
            )
        if inner is None:
            raise Fault((*place, name), "must not be null; leave it out")
    return entry


def _list(place: Place, value: Any) -> Sequence[Any]:
    if not is_sequence(value):
        raise Fault(place, f"must be a list, got {_shown_value(value)}")
    return value


def _shown_value(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
