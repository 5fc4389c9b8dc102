"""Where things stand: how large a room may be, which names stand once, and which paths are public."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.markdown import blocks, table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "failpath_otel"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "ui" not in path.relative_to(PACKAGE).parts)
REFERENCE = "\n".join(page.read_text() for page in sorted((ROOT / "docs" / "reference").glob("*.md")))
# The two middlewares are one thing for two kinds of servers, and an application imports one of them by its module.
TWICE = {"FailpathMiddleware"}


def test_no_folder_has_more_than_26_files_of_its_own_and_the_root_16() -> None:
    sizes: dict[str, int] = defaultdict(int)
    for path in SOURCES:
        sizes[path.parent.relative_to(ROOT).as_posix()] += 1
    assert {folder: n for folder, n in sizes.items() if n > (16 if folder == "failpath_otel" else 26)} == {}


def test_a_class_name_stands_once_in_the_package() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path.relative_to(ROOT).as_posix())
    assert {name: where for name, where in places.items() if len(where) > 1 and name not in TWICE} == {}


def test_every_room_says_in_one_line_what_it_is_for() -> None:
    rooms = [path for path in SOURCES if path.name == "__init__.py"]
    assert [path for path in rooms if not (ast.get_docstring(ast.parse(path.read_text())) or "").strip()] == []


def public_modules() -> set[str]:
    """By the rule of docs/architecture.md: the modules of the names in docs/reference."""
    return {name.rpartition(".")[0] for name in re.findall(r"^::: ([\w.]+)$", REFERENCE, re.MULTILINE)}


def imported(source: str) -> set[str]:
    """The modules of ours that a piece of Python imports from."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name.partition(".")[0] == "failpath_otel"}


def shown_to_users() -> dict[str, str]:
    """The Python that users are shown: of the documents and of the examples, by place."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    shown = {
        f"{page.relative_to(ROOT)}, line {block.line}": block.body
        for page in pages
        if "decisions" not in page.parts
        for block in blocks(page)
        if block.language == "python"
    }
    for path in sorted((ROOT / "examples").rglob("*.py")):
        shown[path.relative_to(ROOT).as_posix()] = path.read_text()
    return shown


@pytest.mark.parametrize("place", sorted(shown_to_users()))
def test_what_users_are_shown_imports_public_paths_alone(place: str) -> None:
    try:
        found = imported(shown_to_users()[place])
    except SyntaxError:  # an excerpt, of which `test_docs` knows how to make a whole
        found = set(re.findall(r"^\s*from (failpath_otel[\w.]*) import", shown_to_users()[place], re.MULTILINE))
    assert found - public_modules() == set()


def test_the_rule_of_what_is_public_stands_in_the_architecture() -> None:
    text = " ".join((ROOT / "docs" / "architecture.md").read_text().split())
    assert "Public is what [the reference](reference/client.md) names, under the path that it has there." in text


def test_the_architecture_has_a_line_for_each_room() -> None:
    """The tables name every folder and every module at the root, and inside the server every room."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    root = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    server = {path.stem for path in (PACKAGE / "server").glob("*.py")} - {"__init__"}
    rooms = {path.parent.name for path in (PACKAGE / "server").glob("*/__init__.py")}
    rows = "".join(re.findall(r"^\|([^|]+)\|", text, re.MULTILINE))
    named = set(re.findall(r"`([\w/]+)`", rows))
    assert root - named == set()
    assert {f"{name}/" for name in folders} - named == set()
    assert {f"server/{name}" for name in server} | {f"server/{name}/" for name in rooms} <= named


def test_the_order_of_the_rooms_in_the_architecture_is_the_one_that_is_checked() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contracts = {one["id"]: one for one in settings["contracts"]}
    drawn = [block.body for block in blocks(ROOT / "docs" / "architecture.md") if block.language == "text"]
    orders = [re.split(r"\s*→\s*", " ".join(body.split())) for body in drawn]
    assert [contracts[name]["layers"] for name in ("arrows", "server-arrows")] == orders


def test_each_place_that_contributors_are_sent_to_exists() -> None:
    rows = table(ROOT / "CONTRIBUTING.md", "## To change something")
    assert len(rows) >= 20
    for _, sources, tests in rows:
        assert_each_exists(sources, PACKAGE)
        assert_each_exists(tests, ROOT / "tests")


def assert_each_exists(cell: str, base: Path) -> None:
    """A bare file name is of the folder that was named before it."""
    folder = base
    for name in re.findall(r"`([\w./-]+(?:\.\w+|/))`", cell):
        found = next((one / name for one in (base, folder, base / "server", ROOT) if (one / name).exists()), None)
        assert found is not None, (cell, name)
        folder = found.parent


TAKES_ALL = {
    # Thrown into what was called, which decides.
    ("propagation/executors.py", "__await__"), ("steps/following.py", "iterated"), ("steps/following.py", "iterated_async"),
    # Threads of our own, where no time limit of an application's comes; what is raised there is handed over or told.
    ("delivery/worker.py", "_survive"), ("delivery/own_thread.py", "work"),
}  # fmt: skip
"""Guards that do not ask where an exception came from, by module and function."""


def test_no_guard_on_an_applications_thread_takes_what_came_from_outside() -> None:
    """Each that takes every exception raises again, or asks `is_interruption` first (decision 19)."""
    found = {place for place in _guards() if place not in TAKES_ALL}
    assert found == set()
    assert set(_guards()) >= TAKES_ALL, "the list has places that are no more"


def _guards() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith(("server/", "cli/", "doctor/", "checking/", "starting/", "bindings/")):
            continue  # commands, and a process of our own
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from ((name, function.name) for node in _own_nodes(function) if _takes_all(node))


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            yield from _own_nodes(node)


def _takes_all(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        return any(ast.unparse(kind) in ("Exception", "BaseException") for kind in node.args)
    if not isinstance(node, ast.ExceptHandler):
        return False
    kinds = ["BaseException"] if node.type is None else ast.unparse(node.type).strip("()").split(", ")
    asks = any(isinstance(each, ast.Raise) or ast.unparse(each) == "is_interruption" for each in ast.walk(node))
    return not asks and not {"Exception", "BaseException"}.isdisjoint(kinds)
