"""Text as Python source: string literals and docstrings, written as formatters write them."""

from __future__ import annotations


def literal(text: str) -> str:
    """A string literal: double quotes, save where single ones need fewer escapes. What cannot be seen is escaped."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    return quote + "".join(_escaped(char, quote) for char in text) + quote


def docstring(text: str) -> str:
    """A docstring on one line."""
    line = " ".join(text.split())
    inner = line.rstrip('"')
    body = "".join(_escaped(char, "") for char in inner).replace('"""', '\\"\\"\\"')
    # A quote before the closing ones would be taken for one of them.
    body += '\\"' * (len(line) - len(inner))
    return f'"""{body or "."}"""'


def _escaped(char: str, quote: str) -> str:
    if char in ("\\", quote):
        return f"\\{char}"
    if char.isprintable():
        return char
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    if named is not None:
        return named
    number = ord(char)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
