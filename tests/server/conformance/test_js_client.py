"""The OpenTelemetry JS SDK as a foreign client: its own encoders for JSON and protobuf, and gRPC in JavaScript."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.collector import missing
from support.served import Served, environment

from failpath_otel.cli.story import RunStory, StepStory, differences, known_story, success

KEY = "s3nder"
RUNS = 25
CLIENT = Path(__file__).parent / "js" / "client.js"
TOOL = Path(__file__).parents[3] / "tools" / "js-client.sh"
PROTOCOLS = ["http/json", "http/protobuf", "grpc"]

Start = Callable[..., Served]


@pytest.fixture(scope="session")
def js_modules() -> Path:
    """Where the SDK is installed; without it the test is skipped, or fails where CI is set."""
    if shutil.which("node") is None:
        missing("no JS client: Node is not installed")
    where = subprocess.run([TOOL, "--where"], capture_output=True, text=True, check=True)
    found = Path(where.stdout.strip()) / "node_modules"
    if not found.exists():
        missing("no JS client: `make js-client` installs it and needs npm")
    return found


@pytest.fixture
def server(start_server: Start, tmp_path: Path) -> Served:
    # Declared, since several steps may begin in the same microsecond of that client's clock.
    nodes = [{"sdkStepKey": key} for key in ("validate-cart", "charge-card", "send-receipt")]
    flows = tmp_path / "flows.json"
    flows.write_text(json.dumps({"flows": [{"slug": "checkout", "nodes": nodes}]}))
    return start_server("--grpc-port", "0", "--ingest-key", KEY, "--flows", str(flows))


def send(
    server: Served, modules: Path, protocol: str, compression: str = "none", key: str = KEY
) -> subprocess.CompletedProcess[str]:
    """Makes the runs and gives what the client said."""
    env = {
        "NODE_PATH": str(modules),
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{server.grpc}" if protocol == "grpc" else server.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{key}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
        "OTEL_EXPORTER_OTLP_TIMEOUT": "20000",
    }
    command = ["node", str(CLIENT), protocol, str(RUNS)]
    return subprocess.run(command, env=environment(env), capture_output=True, text=True, timeout=60, check=False)


def done(number: int) -> RunStory:
    """What the client did in one run."""
    declined = StepStory("error", ("error",), error="CardDeclined")
    steps = {
        "validate-cart": success(),
        "charge-card": declined if number % 2 else success(),
        "send-receipt": StepStory("skipped", ("skipped",), skip_reason="opted out"),
    }
    return RunStory("checkout", f"js-{number}", "error" if number % 2 else "success", steps)


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_runs_are_exactly_as_done(server: Served, js_modules: Path, protocol: str, compression: str) -> None:
    said = send(server, js_modules, protocol, compression)
    assert (said.returncode, said.stderr) == (0, "")
    counts = server.get("/api/intake").json
    # A start by a record and an outcome by a span for each of three steps, and one span that is no step.
    expected = {"accepted": RUNS * 6, "duplicates": 0, "rejected": 0, "unmapped": 1, "incomplete": 0}
    assert {name: counts[name] for name in expected} == expected
    for number in range(RUNS):
        known = known_story(server.get("/api/run", flow="checkout", run_id=f"js-{number}").json)
        assert differences(done(number), known) == []
    events = server.get("/api/run/events", flow="checkout", run_id="js-1").json["events"]
    assert {event["service"] for event in events} == {"till"}
    (validated,) = (event for event in events if event["stepKey"] == "validate-cart" and event["status"] == "success")
    assert validated["metadata"] == {"number": 1, "total": 12.5, "gift": True, "items": ["a", "Grüße"]}
    (charged,) = (event for event in events if event["stepKey"] == "charge-card" and event["status"] == "error")
    assert (charged["error"]["name"], charged["error"]["message"]) == ("CardDeclined", "no funds")
    assert "client.js" in charged["error"]["stack"]
    (started,) = (event for event in events if event["stepKey"] == "charge-card" and event["status"] == "running")
    assert started["spanId"] == charged["spanId"]
    assert abs(_micros(started["timestamp"]) - _micros(charged["startedAt"])) <= 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_wrong_key_is_said_by_the_client(server: Served, js_modules: Path, protocol: str) -> None:
    said = send(server, js_modules, protocol, key="wrong")
    assert said.returncode == 1
    assert ("UNAUTHENTICATED" if protocol == "grpc" else "401") in said.stderr
    assert server.get("/api/intake").json["accepted"] == 0


def _micros(time: str) -> int:
    return int(time.removesuffix("Z").rpartition(".")[2])
