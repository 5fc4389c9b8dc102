"""What the guides say of Collectors is so: their lines work in one, their messages are those that are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.collector import CONFIGS, ROOT, StartCollector
from support.markdown import blocks
from support.otlp_backend import OtlpBackend
from support.ports import free_port
from support.served import Client, until
from support.shop import assert_exact, shop

GUIDE = ROOT / "docs" / "collector.md"
TROUBLES = (ROOT / "docs" / "troubleshooting.md").read_text()

# A Collector as someone may have it.
EXISTING = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: 127.0.0.1:{grpc}}}
      http: {{endpoint: 127.0.0.1:{http}}}
exporters:
  otlp_http/mine: {{endpoint: "{backend}"}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_http/mine]}}
    logs: {{receivers: [otlp], exporters: [otlp_http/mine]}}
"""


def snippet() -> str:
    (found,) = (block.body for block in blocks(GUIDE) if "collector" in block.words)
    return found


def test_the_lines_of_the_guide_show_runs_in_a_collector_that_has_its_own_pipelines(
    start_collector: StartCollector, api: Client, backend: OtlpBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grpc, http = free_port(), free_port()
    (tmp_path / "mine.yaml").write_text(EXISTING.format(grpc=grpc, http=http, backend=backend.url))
    (tmp_path / "added.yaml").write_text(snippet())
    collector = start_collector(
        tmp_path / "mine.yaml",
        {"FAILPATH_ENDPOINT": api.url},
        arguments=("--config", str(tmp_path / "added.yaml")),
        grpc_port=grpc,
        http_port=http,
    )
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    with shop(exporter="otlp", spans_to=collector.endpoint) as service:
        service.checkouts(4)
        service.flush()
        assert_exact(api, service, events=service.events)
        until(lambda: len(backend.traces) == service.attempts and len(backend.logs) == service.events)


def test_the_lines_of_the_guide_are_those_of_quickstart() -> None:
    shipped = {line.strip() for line in (CONFIGS / "quickstart.yaml").read_text().splitlines()}
    own = [line.strip() for line in snippet().splitlines() if line.strip()]
    assert [line for line in own if line not in shipped and "[filter/failpath]" not in line] == []


def test_each_message_of_the_client_that_the_guide_names_is_one_that_it_writes() -> None:
    section = TROUBLES[TROUBLES.index("The logger `failpath_otel` tells") :]
    section = section[: section.index("`failpath.stats()` gives")]
    messages = re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)
    assert len(messages) >= 6
    sources = "\n".join(path.read_text() for path in (ROOT / "failpath_otel").rglob("*.py"))
    for message in messages:
        parts = [part.strip(" :") for part in message.split("…") if part.strip(" :")]
        pattern = r"%[sd](?:: %s)*".join(re.escape(part) for part in parts)
        assert re.search(pattern, sources) or all(part in sources for part in parts), message


def test_each_message_of_a_collector_that_the_guide_names_is_one_that_it_writes(collector_binary: Path) -> None:
    section = TROUBLES[TROUBLES.index("## The Collector logs") :]
    section = section[: section.index("\n## ", 3)]
    messages = re.findall(r"^- `([^`]+)`", section, re.MULTILINE)
    assert len(messages) == 4
    program = collector_binary.read_bytes()
    for message in messages:
        assert all(part.encode() in program for part in message.rstrip(".").split(". ")), message
