"""What the documents say is so: their examples run, their tables are the code's, their links lead somewhere."""

from __future__ import annotations

import ast
import http.client
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
from support.examples import is_script, is_test, run_scripts, run_tests
from support.markdown import Block, anchors, blocks, documents, links, table
from support.served import Client, in_thread

from failpath_otel.cli.group import COMMANDS, cli
from failpath_otel.config import OPTIONS
from failpath_otel.flows import load_flows
from failpath_otel.server.settings import Settings
from failpath_otel.version import VERSION

ROOT = Path(__file__).parent.parent
DOCUMENTS = documents(ROOT)
SECONDS = 60


def name_of(value: object) -> str | None:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else None


def with_blocks(wanted: Callable[[Block], bool]) -> list[Path]:
    return [document for document in DOCUMENTS if any(map(wanted, blocks(document)))]


@pytest.mark.parametrize("document", with_blocks(is_script), ids=name_of)
def test_examples_run_and_print_what_the_document_shows(document: Path, tmp_path: Path) -> None:
    printed, shown = run_scripts(document, tmp_path)
    assert printed == shown


@pytest.mark.parametrize("document", with_blocks(is_test), ids=name_of)
def test_example_tests_pass(document: Path, tmp_path: Path) -> None:
    said = run_tests(document, tmp_path)
    assert re.search(r"^\d+ passed", said, re.MULTILINE), said


@pytest.mark.parametrize("document", with_blocks(lambda block: block.language == "json"), ids=name_of)
def test_json_in_the_documents_is_json(document: Path) -> None:
    for block in blocks(document):
        if block.language == "json":
            json.loads(block.body)


@pytest.fixture(scope="module")
def fresh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    db = tmp_path_factory.mktemp("docs") / "runs.db"
    with in_thread(Settings(db=str(db), flows=load_flows(ROOT / ".failpath" / "flows.json"), port=0)) as client:
        yield client


def exchanges(document: Path) -> Iterator[tuple[Block, Block]]:
    """Each request that a document shows, with the answer that follows it."""
    shown = [block for block in blocks(document) if block.language == "http"]
    assert len(shown) % 2 == 0
    yield from zip(shown[::2], shown[1::2], strict=True)


def parsed(block: Block) -> tuple[str, dict[str, str], str]:
    head, _, body = block.body.partition("\n\n")
    first, *fields = head.splitlines()
    return first, dict(field.split(": ", 1) for field in fields), body.strip()


@pytest.mark.parametrize("document", with_blocks(lambda block: block.language == "http"), ids=name_of)
def test_the_server_answers_as_the_document_shows(document: Path, fresh_server: Client) -> None:
    for request, answer in exchanges(document):
        line, headers, body = parsed(request)
        method, path, _ = line.split()
        parts = urlsplit(fresh_server.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS)
        connection.request(method, path, body.encode(), headers)
        response = connection.getresponse()
        said = json.loads(response.read())
        connection.close()
        status, expected_headers, expected = parsed(answer)
        where = f"{document.name}, line {request.line}"
        assert f"HTTP/1.1 {response.status} {response.reason}" == status, (where, said)
        assert said == json.loads(expected), where
        assert {name: response.headers[name] for name in expected_headers} == expected_headers, where


def code(text: str) -> str:
    return f"`{text}`"


def test_the_configuration_table_is_the_codes() -> None:
    expected = [
        [
            code(option.name),
            code(option.env) if option.env else "",
            "" if option.default is None else code(repr(option.default)),
        ]
        for option in OPTIONS
    ]
    rows = table(ROOT / "docs" / "configuration.md", "## The client")
    assert [[name, env, default.replace('"', "'")] for name, env, default, _ in rows] == expected
    assert [doc for *_, doc in rows] == [option.doc for option in OPTIONS]


def options_of(name: str) -> dict[str, click.Option]:
    context = click.Context(cli)
    command = cli.get_command(context, name)
    assert command is not None
    return {option.opts[-1]: option for option in command.params if isinstance(option, click.Option)}


def test_the_table_of_server_options_is_the_commands() -> None:
    options = options_of("serve")
    rows = table(ROOT / "docs" / "configuration.md", "## The server")
    assert [(name, env) for name, env, *_ in rows] == [
        (code(name), code(str(option.envvar))) for name, option in options.items()
    ]
    for name, _, default, _ in rows:
        known = options[name.strip("`")].default
        if isinstance(known, str | int | float) and not isinstance(known, bool):
            assert default == code(f"{known:g}" if isinstance(known, float) else str(known)), name


@pytest.mark.parametrize(
    ("name", "document", "heading"),
    [
        ("generate", "typed-keys.md", "### Options of generate"),
        ("check", "typed-keys.md", "### Options of check"),
        ("doctor", "doctor.md", "## Options"),
        ("init", "zero-code.md", "### Options of init"),
    ],
)
def test_the_tables_of_commands_are_the_commands(name: str, document: str, heading: str) -> None:
    options = options_of(name)
    rows = table(ROOT / "docs" / document, heading)
    assert [option for option, *_ in rows] == [code(option) for option in options]
    for option, default, _ in rows:
        known = options[option.strip("`")].default
        shown = f"{known:g}" if isinstance(known, float) else known
        assert default == (code(shown) if isinstance(shown, str) else ""), option


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_each_of_its_options_is_documented(name: str) -> None:
    texts = [document.read_text() for document in DOCUMENTS if f"failpath-otel {name}" in document.read_text()]
    assert texts, name
    for option in options_of(name):
        assert any(re.search(rf"`[^`\n]*{option}(?![\w-])", text) for text in texts), f"{name} {option}"


def test_every_check_of_the_doctor_is_documented() -> None:
    rows = table(ROOT / "docs" / "doctor.md", "## What is looked at")
    sources = "".join(path.read_text() for path in (ROOT / "failpath_otel" / "doctor").glob("*.py"))
    made = set(re.findall(r'(?:ok|warning|problem|say|connects)\(\s*"([a-z-]+)"', sources)) | set(
        re.findall(r'^CHECK: Final = "([a-z-]+)"', sources, re.MULTILINE)
    )
    assert {name.strip("`") for name, *_ in rows} == made


def command_lines() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for document in DOCUMENTS:
        for block in blocks(document):
            if block.language in ("sh", "console"):
                lines = block.body.replace("\\\n", " ").splitlines()
                found += [(f"{document.name}:{block.line}", line.removeprefix("$ ").partition(" #")[0]) for line in lines]
    return found


def test_commands_in_the_documents_exist_with_these_options() -> None:
    seen = 0
    for where, line in command_lines():
        words = shlex.split(line)
        while words and "=" in words[0] and not words[0].startswith("-"):
            words.pop(0)
        if words[:1] != ["failpath-otel"]:
            continue
        with click.Context(cli) as context:
            name, command, arguments = cli.resolve_command(context, words[1:])
        assert command is not None, (where, name)
        # Parses and goes no further.
        command.make_context(name, arguments, resilient_parsing=False).close()
        seen += 1
    assert seen


def test_make_targets_in_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for document in DOCUMENTS for target in re.findall(r"\bmake ([a-z-]+)\b(?=[`\n])", document.read_text())}
    assert named - targets == set()
    assert {"demo", "test", "check", "bench"} <= named


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for target in links(document):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        place = (document.parent / path).resolve() if path else document
        assert place.exists(), f"{document.name} links to {target}"
        if anchor:
            assert anchor in anchors(place), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_no_heading_stands_twice(document: Path) -> None:
    """Not only a link could not tell them apart: it is how a section that was merged twice shows."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = Counter(re.findall(r"^##+ .*$", text, re.MULTILINE))
    assert [heading for heading, count in headings.items() if count > 1] == []


def test_every_decision_and_document_is_linked() -> None:
    index = ROOT / "docs" / "decisions" / "README.md"
    decisions = {path.name for path in index.parent.glob("[0-9]*.md")}
    assert decisions
    assert decisions <= set(links(index))
    readme = set(links(ROOT / "README.md"))
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= readme


def test_the_messages_that_troubleshooting_explains_are_those_of_the_client() -> None:
    said = [
        node.value
        for source in (ROOT / "failpath_otel").rglob("*.py")
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    explained = [row[0].strip("`") for row in table(ROOT / "docs" / "troubleshooting.md", "## The client logs or counts drops")]
    assert explained
    for message in explained:
        parts = ".*".join(re.escape(part.strip()) for part in message.split("…"))
        assert any(re.search(parts, text) for text in said), message


def test_the_changelog_tells_of_this_version() -> None:
    assert re.search(rf"^## \[?{re.escape(VERSION)}\]?", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
