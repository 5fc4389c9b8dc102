"""Checks of what options are given: each returns the value, or raises `ConfigError` with name, value and what is allowed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from failpath_otel.errors import ConfigError
from failpath_otel.rules.discovery import FromEnvironment
from failpath_otel.rules.rule import SpanRule, SpanRules

EXPORTERS: Final = ("http", "otlp", "console", "jsonl", "memory", "none")

_MAX_COUNT: Final = 2**31 - 1
"""More milliseconds than a socket's timeout can take would fail at each request."""
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


def checked_flag(name: str, value: Any) -> bool:
    """True or false, in one of the words for it."""
    text = str(value).lower() if isinstance(value, str | int) else ""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ConfigError(f"{name} must be true or false, got {value!r}")


def checked_count(minimum: int) -> Callable[[str, Any], int]:
    """A check for whole numbers of at least ``minimum``."""

    def check(name: str, value: Any) -> int:
        try:
            number = int(value)
            whole = number == float(value) and not isinstance(value, bool)
        except (TypeError, ValueError, OverflowError):
            number, whole = 0, False
        if not whole:
            raise ConfigError(f"{name} must be a whole number, got {value!r}")
        if number < minimum:
            raise ConfigError(f"{name} must be at least {minimum}, got {number}")
        if number > _MAX_COUNT:
            raise ConfigError(f"{name} must be at most {_MAX_COUNT}, got {number}")
        return number

    return check


def checked_one_of(choices: tuple[str, ...]) -> Callable[[str, Any], str]:
    """A check for one of these words, in any case."""

    def check(name: str, value: Any) -> str:
        if isinstance(value, str) and value.lower() in choices:
            return value.lower()
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}")

    return check


def checked_metadata(name: str, value: Any) -> Mapping[str, Any]:
    """A mapping, or text such as ``region=eu,tier=gold``."""
    if isinstance(value, Mapping):
        return cast(Mapping[str, Any], value)
    if isinstance(value, str):
        pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
        if all(separator and key.strip() for key, separator, _ in pairs):
            return {key.strip(): text.strip() for key, _, text in pairs}
    raise ConfigError(f"{name} must be a mapping, or text such as region=eu,tier=gold, got {value!r}")


def checked_callable(name: str, value: Any) -> Callable[..., Any]:
    """What can be called."""
    if not callable(value):
        raise ConfigError(f"{name} must be callable, got {value!r}")
    return cast(Callable[..., Any], value)


def checked_exporter(name: str, value: Any) -> Any:
    """The name of an exporter, or an object that is one."""
    if isinstance(value, str):
        kind, _, argument = value.partition(":")
        if kind.lower() == "jsonl" and argument:
            return f"jsonl:{argument}"
        return checked_one_of(EXPORTERS)(name, value)
    if callable(getattr(value, "export", None)) and callable(getattr(value, "close", None)):
        return value
    choices = ", ".join(EXPORTERS)
    raise ConfigError(f"{name} must be one of {choices}, or an object with export() and close(), got {value!r}")


def checked_provider(name: str, value: Any) -> Any:
    """A tracer provider."""
    if callable(getattr(value, "get_tracer", None)):
        return value
    raise ConfigError(f"{name} must be an OpenTelemetry tracer provider with get_tracer(), got {value!r}")


def checked_flows(name: str, value: Any) -> Any:
    """Where flows come from."""
    if value is False or isinstance(value, str | os.PathLike) or hasattr(value, "by_slug"):
        return cast("Any", value)
    raise ConfigError(f"{name} must be the path of a flows.json, a Flows object, or False, got {value!r}")


def checked_rules(name: str, value: Any) -> Any:
    """Where span rules come from."""
    if name == "FAILPATH_RULES":
        return False if value.lower() in _FALSE else FromEnvironment(value)
    listed = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if isinstance(value, SpanRules) or (listed and all(isinstance(rule, SpanRule) for rule in cast("Sequence[Any]", value))):
        return cast("Any", value)
    if value is False or (isinstance(value, str | os.PathLike) and os.fspath(cast("Any", value))):
        return cast("Any", value)
    raise ConfigError(f"{name} must be the path of a spans.json, SpanRules, a list of SpanRule, or False, got {value!r}")
