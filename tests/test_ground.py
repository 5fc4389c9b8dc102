"""What holds for the repository as a whole."""

from __future__ import annotations

import ast
import importlib.resources
import re
import shutil
import subprocess
from importlib.metadata import entry_points, metadata, requires
from pathlib import Path
from types import ModuleType

import pytest

import failpath_otel
from failpath_otel.version import VERSION


def test_what_the_door_lists_is_what_it_exports() -> None:
    exported = {
        name
        for name, value in vars(failpath_otel).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name not in {"annotations", "VERSION"}
    }
    assert set(failpath_otel.__all__) - {"__version__"} == exported
    assert list(failpath_otel.__all__) == sorted(failpath_otel.__all__)
    assert failpath_otel.__version__ == VERSION == metadata("failpath-otel")["Version"]


def test_the_door_holds_re_exports_and_nothing_else() -> None:
    body = ast.parse(Path(failpath_otel.__file__).read_text()).body
    others = [type(statement) for statement in body if not isinstance(statement, ast.ImportFrom)]
    assert others[0] is ast.Expr  # the docstring
    assert set(others[1:]) <= {ast.Assign}  # __all__, __version__


def test_the_package_carries_its_type_marker_and_the_files_of_its_pages() -> None:
    package = importlib.resources.files("failpath_otel")
    assert (package / "py.typed").is_file()
    static = package / "server" / "static"
    assert {"index.html", "app.js", "app.css", "icon.svg", "licenses.txt"} <= {file.name for file in static.iterdir()}


def test_the_command_and_the_pytest_plugin_can_be_loaded() -> None:
    for group in ("console_scripts", "pytest11"):
        (entry,) = [entry for entry in entry_points(group=group) if entry.value.startswith("failpath_otel.")]
        assert entry.load()


def lower_bounds() -> dict[str, str]:
    found: dict[str, str] = {}
    for requirement in requires("failpath-otel") or ():
        if "neighbours" in requirement:  # what stands beside the package in tests, with pins of its own
            continue
        match = re.match(r"(opentelemetry-[a-z-]+)>=([\w.]+)", requirement)
        if match:
            found[match[1]] = match[2]
    return found


def test_the_minimum_that_is_promised_is_the_minimum_that_is_tested(repository: Path) -> None:
    pins = dict(
        re.findall(
            r"^(opentelemetry-[a-z-]+)==([\w.]+)$", (repository / "constraints" / "minimum.txt").read_text(), re.MULTILINE
        )
    )
    bounds = lower_bounds()
    assert {"opentelemetry-api", "opentelemetry-sdk", "opentelemetry-exporter-otlp"} <= bounds.keys()
    assert {name: pins[name] for name in bounds} == {
        name: bound if pins[name] == bound else f"{bound}.0" for name, bound in bounds.items()
    }


def tracked(repository: Path) -> list[Path]:
    if not (repository / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no checkout: there is no list of tracked files")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, check=True, timeout=30).stdout
    return [repository / name for name in listed.decode().split("\0") if name and (repository / name).is_file()]


def test_no_tracked_file_names_a_registry_or_a_path_of_one_machine(repository: Path) -> None:
    registry = r"https?://[\w.-]*(?:pypi|pythonhosted|npmjs|crates\.io|proxy\.golang|maven)[\w./-]*|--(?:extra-)?index-url"
    homes = [str(path) for path in (repository, Path.home()) if len(path.parts) > 1]
    machine = "|".join(rf"(?<![\w.]){re.escape(home)}/" for home in homes)
    pattern = re.compile(f"(?:{registry}|{machine})".encode())
    own = Path(__file__).name
    found = [
        f"{path.relative_to(repository)}: {match[0]!r}"
        for path in tracked(repository)
        if path.suffix != ".png" and path.name != own and (match := pattern.search(path.read_bytes()))
    ]
    assert not found


def test_no_source_file_is_longer_than_400_lines(repository: Path) -> None:
    sources = [path for path in tracked(repository) if path.suffix == ".py" and "failpath_otel" in path.parts]
    lengths = {str(path.relative_to(repository)): len(path.read_text().splitlines()) for path in sources}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_pins_are_names_and_versions_only(repository: Path) -> None:
    pin = re.compile(r"^[a-z0-9._-]+==[\w.+]+(?: ; .+)?$")
    for path in (repository / "constraints").iterdir():
        lines = [line for line in path.read_text().splitlines() if line and not line.lstrip().startswith("#")]
        assert lines
        assert [line for line in lines if not pin.match(line)] == []
