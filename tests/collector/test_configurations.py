"""Every shipped configuration says what it reads from the environment, and the page beside them tells of each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.collector import CONFIGS
from support.markdown import anchors, table

README = CONFIGS / "README.md"
FILES = sorted(path for path in CONFIGS.glob("*.yaml") if path.name != "builder.yaml")
_VARIABLE = re.compile(r"\$\{env:(?P<name>\w+):-(?P<default>[^}]*)\}")


def read_from(config: Path) -> dict[str, str]:
    """The variables that a configuration reads, with their defaults."""
    lines = [line for line in config.read_text().splitlines() if not line.lstrip().startswith("#")]
    text = "\n".join(lines)
    found = [(variable["name"], variable["default"]) for variable in _VARIABLE.finditer(text)]
    assert text.count("${env:") == len(found), f"{config.name} reads a variable without a default"
    return dict(found)


def named_in(config: Path) -> set[str]:
    """The variables that the comment at the top of a file says it reads."""
    head = config.read_text().split("\n\n", 1)[0]
    said = re.search(r"From the environment: (?P<names>[^.]*)\.", head)
    assert said is not None, f"{config.name} does not say what it reads"
    return set(re.findall(r"\w+", said["names"]))


@pytest.mark.parametrize("config", FILES, ids=lambda path: path.name)
def test_the_head_names_what_is_read_from_the_environment_and_nothing_else(config: Path) -> None:
    assert named_in(config) == set(read_from(config))


@pytest.mark.parametrize("config", FILES, ids=lambda path: path.name)
def test_the_page_has_a_row_and_a_section_for_it(config: Path) -> None:
    assert any(f"`{config.name}`" in row[-1] for row in table(README, "# Configurations for an OpenTelemetry Collector"))
    assert any(config.name.replace(".", "") in anchor for anchor in anchors(README))


@pytest.mark.parametrize("config", FILES, ids=lambda path: path.name)
def test_the_table_of_variables_has_those_of_the_file_with_their_defaults(config: Path) -> None:
    rows = {name.strip("`"): default for name, default, _ in table(README, "## The environment")}
    for name, default in read_from(config).items():
        assert name in rows
        assert not default or f"`{default}`" in rows[name], name


@pytest.mark.parametrize("config", FILES, ids=lambda path: path.name)
def test_a_test_starts_it(config: Path) -> None:
    tests = [path.read_text() for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    assert any(f'"{config.name}"' in text for text in tests)
