"""The project's Markdown documents, and the fenced blocks, links and tables in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!\\)!?\[[^\]]*\]\((?P<target>[^)\s]+)(?: \"[^\"]*\")?\)")
_SOURCE = re.compile(r"(?:src|srcset|href)=\"(?P<target>[^\"]+)\"")
_HEADING = re.compile(r"^#+ +(?P<title>.+?) *$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the other words of its first line, the line where it begins."""

    language: str
    words: tuple[str, ...]
    body: str
    line: int


def documents(root: Path) -> list[Path]:
    """Every document that a reader is meant to read."""
    top = [root / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
    folders = ("collector-config", "docs", "examples")
    return [*top, *(document for folder in folders for document in sorted((root / folder).rglob("*.md")))]


def blocks(document: Path) -> Iterator[Block]:
    """The fenced blocks of a document, in order."""
    text = document.read_text()
    for found in _FENCE.finditer(text):
        words = found["info"].split()
        yield Block(words[0] if words else "", tuple(words[1:]), found["body"], text.count("\n", 0, found.start()) + 2)


def links(document: Path) -> list[str]:
    """The targets of links and pictures, outside of fenced blocks."""
    text = _FENCE.sub("", document.read_text())
    return [found["target"] for pattern in (_LINK, _SOURCE) for found in pattern.finditer(text)]


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to a document's headings."""
    titles = [found["title"] for found in _HEADING.finditer(_FENCE.sub("", document.read_text()))]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def table(document: Path, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, without its head; cells without the backticks around them."""
    below = f"\n{document.read_text()}".split(f"\n{heading}\n", 1)[1]
    rows: list[list[str]] = []
    for line in below.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif rows:
            break
    return rows[2:]
