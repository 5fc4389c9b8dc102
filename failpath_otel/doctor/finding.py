"""What an examination finds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, get_args

import msgspec

Level = Literal["ok", "warning", "problem"]
LEVELS: Final[tuple[Level, ...]] = get_args(Level)


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that was looked at.

    Attributes:
        check: What was looked at; stable, to go by in scripts.
        level: ``problem``: nothing, or not all, is reported. ``warning``: it works, perhaps not as meant.
        what: What is the case.
        why: Why that matters; left out where all is well.
        fix: What to do about it.
    """

    check: str
    level: Level
    what: str
    why: str = ""
    fix: str = ""


class Diagnosis(msgspec.Struct, frozen=True):
    """Everything that was found, in the order in which it was looked at."""

    findings: tuple[Finding, ...]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def count(self, level: Level) -> int:
        """How many findings of one level there are."""
        return sum(finding.level == level for finding in self.findings)


def ok(check: str, what: str) -> Finding:
    """All is well."""
    return Finding(check=check, level="ok", what=what)


def warning(check: str, what: str, why: str, fix: str) -> Finding:
    """It works, perhaps not as meant."""
    return Finding(check=check, level="warning", what=what, why=why, fix=fix)


def problem(check: str, what: str, why: str, fix: str) -> Finding:
    """Nothing, or not all, is reported."""
    return Finding(check=check, level="problem", what=what, why=why, fix=fix)
