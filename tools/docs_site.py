"""For the site: documents that lie outside of docs/ become pages under repository/, and links between all of them lead there.

On GitHub the documents are read where they lie, so their links are those of the repository; README.md is the site's first page.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
FOLDERS = ("collector-config", "examples")
_LINK = re.compile(r"(?<=\]\()(?P<target>[^)#\s]+)|(?<=src=\")(?P<source>[^\"]+)|(?<=srcset=\")(?P<set>[^\"]+)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the documents outside of docs/, and every file of the repository that one links to."""
    texts = {f"docs/{file.src_uri}": file.content_string for file in files if file.src_uri.endswith(".md")}
    outside = [ROOT / name for name in PAGES] + [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.md"))]
    for path in outside:
        name = path.relative_to(ROOT).as_posix()
        texts[name] = path.read_text(encoding="utf-8")
        files.append(File.generated(config, in_site(name), content=texts[name]))
    for name, text in texts.items():
        for target in links(text):
            linked = repository_path(name, target)
            if linked is not None and files.get_file_from_path(in_site(linked)) is None and (ROOT / linked).is_file():
                files.append(File.generated(config, in_site(linked), abs_src_path=str(ROOT / linked)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Turns the repository's links into those of the site."""
    here = page.file.src_uri
    name = in_repository(here)

    def in_page(found: re.Match[str]) -> str:
        linked = repository_path(name, found[0])
        return found[0] if linked is None else posixpath.relpath(in_site(linked), posixpath.dirname(here) or ".")

    # The words behind a block's language are for the tests, and superfences takes no block that has them.
    markdown = re.sub(r"^( *```\w+) .*$", r"\1", markdown, flags=re.MULTILINE)
    # Not within code: what looks like a link there is none.
    parts = re.split(r"(^ *```.*?^ *```$|`[^`\n]+`)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.lstrip().startswith("`") else _LINK.sub(in_page, part) for part in parts)


def on_page_content(html: str, **_: object) -> str:
    """Docstrings announce a block of code by two colons, as reStructuredText does; Markdown shows both."""
    return html.replace("<p>::</p>", "").replace("::</p>", ":</p>")


def links(text: str) -> list[str]:
    """The targets of a document's links and pictures."""
    return [found[0] for found in _LINK.finditer(text)]


def repository_path(name: str, target: str) -> str | None:
    """Where a link of the document ``name`` leads within the repository; ``None`` for one that leads elsewhere."""
    if re.match(r"[a-z]+:|#|/", target):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    return posixpath.join(path, "README.md") if (ROOT / path / "README.md").is_file() else path


def in_site(name: str) -> str:
    """Where a file of the repository lies in the site."""
    if name == "README.md":
        return "index.md"
    return name.removeprefix("docs/") if name.startswith("docs/") else f"repository/{name}"


def in_repository(name: str) -> str:
    """The inverse of `in_site`."""
    if name == "index.md":
        return "README.md"
    return name.removeprefix("repository/") if name.startswith("repository/") else f"docs/{name}"
