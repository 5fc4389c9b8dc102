"""Which rules a service uses: those that it was given, those of the environment, or those of the nearest file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from failpath_otel.errors import ConfigError
from failpath_otel.notices import warn_once
from failpath_otel.rules.file import find_rules_file, load_rules
from failpath_otel.rules.matching import CompiledRules
from failpath_otel.rules.rule import SpanRule, SpanRules


class FromEnvironment(str):
    """A path that the environment names."""

    __slots__ = ()


def rules_in_use(given: Any) -> CompiledRules | None:
    """The rules, compiled; ``None`` where there are none.

    Args:
        given: A path, rules, False for none, or ``None`` to look upward from the working directory. Of a file that the
            environment names or that is found, what is wrong is warned of, and there are no rules.

    Raises:
        ConfigError: Rules that were given in code cannot be used.
    """
    try:
        rules = _rules(given)
    except (OSError, ConfigError) as error:
        if given is not None and not isinstance(given, FromEnvironment):
            raise
        # Nobody named it in code, so it is no reason to stop a service.
        warn_once("rules", "no span rules are used, so spans without the attributes are no steps: %s", error)
        return None
    return CompiledRules(rules) if len(rules) else None


def _rules(given: Any) -> SpanRules:
    if given is False:
        return SpanRules()
    if isinstance(given, SpanRules):
        return given
    if given is None:
        found = find_rules_file(Path.cwd())
        return load_rules(found) if found is not None else SpanRules()
    if isinstance(given, Sequence) and not isinstance(given, str):
        return SpanRules(tuple(cast("Sequence[SpanRule]", given)))
    return load_rules(Path(given))
