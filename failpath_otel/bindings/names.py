"""Names of Python for slugs and keys of any text.

The rule: lower case; a capital after a small letter or a digit begins a word; everything that cannot stand in a name becomes
one ``_``; no ``_`` at either end. What does not begin with a letter gets ``flow_`` or ``step_`` before it; a keyword or a name
that is taken gets ``_`` after it. Where several keys come to one name, each of them gets ``_`` and the first six digits of the
SHA-256 of its key: so a name depends neither on the order of the file nor on who came first.
"""

from __future__ import annotations

import hashlib
import keyword
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

_WORD_BEGINS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_FIRST_DIGITS: Final = 6
_ALL_DIGITS: Final = 64


def variable_name(key: str, kind: str, taken: Collection[str] = ()) -> str:
    """The name for a key; ``kind`` (``flow`` or ``step``) stands before what cannot begin a name."""
    words = _stable(_WORD_BEGINS.sub("_", key))
    name = re.sub("_+", "_", "".join(char if f"a{char}".isidentifier() else "_" for char in words)).strip("_")
    # A mark that combines with what stands before it may need to be composed anew.
    name = unicodedata.normalize("NFKC", name)
    if not name:
        return kind
    if not name[0].isidentifier():
        name = f"{kind}_{name}"
    return f"{name}_" if keyword.iskeyword(name) or name in taken else name


def class_name(variable: str) -> str:
    """``PaymentWebhook`` of ``payment_webhook``."""
    parts = [part[:1].upper() + part[1:] for part in variable.split("_") if part]
    return unicodedata.normalize("NFKC", "".join(parts))


def unique_names(keys: Iterable[str], name_of: Callable[[str], str]) -> Mapping[str, str]:
    """A name for each key, no two alike; those that would be alike get digits of their keys' hashes, as few as will do."""
    keys = list(keys)
    digits = dict.fromkeys(keys, 0)
    while True:
        names = {key: _with_digits(name_of(key), key, digits[key]) for key in keys}
        count = Counter(names.values())
        alike = [key for key in keys if count[names[key]] > 1]
        if not alike:
            return names
        for key in alike:
            digits[key] = min(_ALL_DIGITS, digits[key] + _FIRST_DIGITS)


def _with_digits(name: str, key: str, digits: int) -> str:
    if not digits:
        return name
    return f"{name.rstrip('_')}_{hashlib.sha256(key.encode(errors='surrogatepass')).hexdigest()[:digits]}"


def _stable(text: str) -> str:
    """``text`` in lower case and in the form (NFKC) in which Python itself reads names; either may undo the other."""
    for _ in range(4):
        changed = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
        if changed == text:
            break
        text = changed
    return text
