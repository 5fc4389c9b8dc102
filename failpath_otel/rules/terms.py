"""The words that rules are written in: how a text or a value is matched, and where one comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

KINDS: Final = ("internal", "server", "client", "producer", "consumer")

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Scalar = str | bool | int | float


@dataclass(frozen=True)
class Glob:
    """The whole text, with ``*`` for any characters, ``?`` for one, ``[ab]`` for one of these. Case counts."""

    pattern: str


@dataclass(frozen=True)
class Regex:
    """A regular expression of Python's ``re`` that is found anywhere in the text; ``^`` and ``$`` hold it to the whole."""

    pattern: str


@dataclass(frozen=True)
class Present:
    """The attribute is there; with ``Present(False)`` it is not."""

    expected: bool = True


@dataclass(frozen=True)
class Range:
    """The attribute is a number within these bounds, both included."""

    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Attribute:
    """The value of an attribute of the span."""

    name: str


@dataclass(frozen=True)
class Baggage:
    """The value of an entry of the baggage that was current when the span began."""

    name: str


Text = str | Glob | Regex
Condition = str | bool | int | float | Glob | Regex | Present | Range | Sequence[Scalar]
Conditions = Mapping[str, Condition]
RunSource = Literal["parent", "baggage", "trace"] | Attribute | Baggage
