"""Metadata made safe for JSON at the time of the call: rendered, bounded in depth and size, detached from the caller."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, cast

import msgspec

from failpath_otel.events.semconv import METADATA_PREFIX
from failpath_otel.events.text import MAX_TEXT_BYTES, as_text, clip
from failpath_otel.interruption import is_interruption

MAX_DEPTH: Final = 8
MAX_EVENT_BYTES: Final = 64 * 1024
CUT_KEY: Final = "…"
"""The key under which a cut dict says how many of its entries are missing."""

_PLAIN_CHARS: Final = 256
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1
_PRIMITIVES: Final = frozenset({str, bool, int, float})

AttributeValue = str | bool | int | float | list[str] | list[bool] | list[int] | list[float]
Rendered = dict[str, Any]


def render(metadata: Mapping[Any, Any] | None, budget: int = MAX_EVENT_BYTES) -> Rendered:
    """A copy of ``metadata`` that JSON can hold.

    Strings are cut at 16 KiB, nesting at depth 8, the whole at ``budget`` bytes, each with a mark at the place. NaN and
    the infinities become text, other objects ``str()`` or ``repr()`` of themselves. Never raises: a value that cannot be
    rendered becomes a note that says so.
    """
    try:
        if not metadata:
            return {}
        if _is_plain(metadata, budget):
            return dict(metadata)
        return _Renderer(budget).entries(metadata, depth=1)
    except Exception as error:
        if is_interruption(error):
            raise
        # A mapping that cannot be walked, or that another thread changes meanwhile: the event goes without its entries.
        return {CUT_KEY: f"[{type(metadata).__name__} cannot be rendered: {type(error).__name__}]"}


def fit(metadata: Rendered, budget: int) -> Rendered:
    """``metadata``, which is rendered already, cut down to ``budget`` bytes where it is larger."""
    if _is_plain(metadata, budget) or len(msgspec.json.encode(metadata)) <= budget:
        return metadata
    return _Renderer(budget).entries(metadata, depth=1)


def as_attributes(metadata: Rendered) -> dict[str, AttributeValue]:
    """Rendered metadata as span attributes: primitives and lists of one primitive type as they are, the rest as JSON text.

    ``None`` has no place on a span and is left out.
    """
    return {METADATA_PREFIX + key: _as_attribute(value) for key, value in metadata.items() if value is not None}


def _as_attribute(value: Any) -> AttributeValue:
    if type(value) in _PRIMITIVES:  # what render() leaves has these very types
        return cast("AttributeValue", value)
    if isinstance(value, list) and value:
        items = cast("Sequence[object]", value)
        kind = type(items[0])
        if kind in _PRIMITIVES and all(type(item) is kind for item in items):
            return cast("AttributeValue", value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _is_plain(metadata: Mapping[Any, Any], budget: int) -> bool:
    """The common case, decided without copying: few short strings and numbers."""
    if len(metadata) * (2 * _PLAIN_CHARS) > budget:
        return False
    for key, value in metadata.items():
        if type(key) is not str or not key.isascii() or len(key) > _PLAIN_CHARS:
            return False
        if type(value) is str:
            if len(value) > _PLAIN_CHARS or not value.isascii():
                return False
        elif type(value) is int:
            if not _INT_MIN <= value <= _INT_MAX:
                return False
        elif type(value) is float:
            if not math.isfinite(value):
                return False
        elif value is not None and value is not True and value is not False:
            return False
    return True


class _Renderer:
    """One rendering, with what is left of its budget and the containers it is inside of."""

    def __init__(self, budget: int) -> None:
        self._left = budget
        self._inside: set[int] = set()

    def entries(self, mapping: Mapping[Any, Any], depth: int) -> Rendered:
        out: Rendered = {}
        for done, (key, value) in enumerate(mapping.items()):
            name = clip(key if type(key) is str else as_text(key), 512)
            cost = _json_bytes(name) + 2
            if self._left <= cost + 8:
                total = len(mapping)  # the rest is not looked at: it may be a million entries
                out[CUT_KEY] = f"[cut {total - done} of {total} entries]"
                self._left -= 48
                break
            self._left -= cost
            out[name] = self.value(value, depth)
        return out

    def items(self, values: Iterable[Any], depth: int) -> list[Any]:
        out: list[Any] = []
        for value in values:
            if self._left <= 8:
                out.append("[cut: the event is full]")
                break
            self._left -= 1
            out.append(self.value(value, depth))
        return out

    def value(self, value: Any, depth: int) -> Any:
        try:
            return self._value(value, depth)
        except Exception as error:
            if is_interruption(error):
                raise
            # Whatever a foreign object does when looked at, it costs this value and nothing else.
            return self._text(f"[{type(value).__name__} cannot be rendered: {type(error).__name__}]")

    def _value(self, value: Any, depth: int) -> Any:
        if isinstance(value, enum.Enum):
            return self._value(value.value, depth)
        if isinstance(value, str):
            return self._text(str.__str__(value))
        if value is None or isinstance(value, bool):
            self._left -= 5
            return value
        if isinstance(value, int):
            self._left -= 20
            number = int(value)
            return number if _INT_MIN <= number <= _INT_MAX else self._text(hex(number))
        if isinstance(value, float):
            self._left -= 24
            real = float(value)
            return real if math.isfinite(real) else str(real)
        return self._object(value, depth)

    def _object(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            return self._nested(value, depth, self.entries)
        if isinstance(value, list | tuple | AbstractSet):
            return self._nested(value, depth, self.items)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
            return self._nested(value, depth, lambda _, below: self.entries(fields, below))
        if isinstance(value, datetime.date | datetime.time):
            return self._text(value.isoformat())
        if isinstance(value, bytes | bytearray):
            return self._text(bytes(value[:MAX_TEXT_BYTES]).decode("utf-8", "backslashreplace"))
        if isinstance(value, BaseException):
            return self._text(f"{type(value).__name__}: {as_text(value)}")
        return self._text(str(value))  # which is repr() where the type has no __str__ of its own

    def _nested(self, value: Any, depth: int, render_with: Callable[[Any, int], Any]) -> Any:
        if id(value) in self._inside:
            return self._text("[cycle]")
        if depth >= MAX_DEPTH:
            return self._text(f"[cut: deeper than {MAX_DEPTH}]")
        self._left -= 2
        self._inside.add(id(value))
        try:
            return render_with(value, depth + 1)
        finally:
            self._inside.discard(id(value))

    def _text(self, text: str) -> str:
        room = max(64, self._left)
        kept = clip(text, min(MAX_TEXT_BYTES, room))
        if _json_bytes(kept) > room:
            # A control character takes six bytes in JSON.
            kept = clip(text, max(64, room // 6))
        self._left -= _json_bytes(kept)
        return kept


def _json_bytes(text: str) -> int:
    """The size of ``text`` in JSON: control characters, quotes and backslashes are longer there than in memory."""
    if text.isascii() and text.isprintable():
        return len(text) + 2 + text.count('"') + text.count("\\")
    return len(json.dumps(text, ensure_ascii=False).encode())
