"""Real Collectors for tests: the binary, a process that is started, killed and started again, and what it says of itself."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.ports import free_port
from support.served import environment, until

ROOT = Path(__file__).parent.parent.parent
CONFIGS = ROOT / "collector-config"
START_SECONDS = 60
STOP_SECONDS = 30


def missing(what: str) -> None:
    """Skips the test, or fails it where CI is set: there it must not go unseen."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def built(name: str) -> Path:
    """A binary that ``make collector`` builds."""
    where = subprocess.run([ROOT / "tools" / "collector.sh", "--where"], capture_output=True, text=True, check=True)
    found = Path(where.stdout.strip()) / name
    if not found.exists():
        missing(f"no {name}: `make collector` builds it and needs Go")
    return found


def collector_path() -> Path:
    """The Collector: ``OTELCOL`` of the environment, else the one that ``make collector`` built."""
    given = os.environ.get("OTELCOL")
    return Path(given) if given else built("otelcol-failpath")


def validate(config: Path, env: Mapping[str, str] | None = None) -> None:
    """``otelcol validate``: fails with what it says where the configuration is none."""
    done = subprocess.run(
        [collector_path(), "validate", "--config", str(config)],
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@dataclass
class Collector:
    """One Collector with a shipped configuration. Its ports are free ones and stay the same from start to start.

    The configurations take their addresses and paths from the environment: `env` names what a test sets beside the
    ports and the storage folder, which are set here.
    """

    config: Path
    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    grpc_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    health_port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    said_before: int = 0

    @property
    def endpoint(self) -> str:
        """Where it takes OTLP/HTTP."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc_endpoint(self) -> str:
        """Where it takes OTLP/gRPC."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def log(self) -> Path:
        """All that it said, over all starts."""
        return self.folder / "collector.log"

    @property
    def environment(self) -> dict[str, str]:
        """What its configuration reads."""
        own = {
            "OTELCOL_OTLP_GRPC": self.grpc_endpoint,
            "OTELCOL_OTLP_HTTP": f"127.0.0.1:{self.http_port}",
            "OTELCOL_HEALTH": f"127.0.0.1:{self.health_port}",
            "OTELCOL_STORAGE": str(self.folder / "storage"),
            "OTELCOL_METRICS_PORT": str(self.metrics_port),
        }
        return {**own, **self.env}

    def start(self) -> None:
        """Starts it and waits until it takes data."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # Its own metrics are the one thing that tests move: every Collector would take the same port.
        own_metrics = (
            "yaml:service::telemetry::metrics::readers: "
            f"[{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {self.metrics_port}}}}}}}}}]"
        )
        with self.log.open("ab") as log:
            self.said_before = log.tell()
            self.process = subprocess.Popen(
                [collector_path(), "--config", str(self.config), "--config", own_metrics, *self.arguments],
                cwd=self.folder,
                env=environment(self.environment),
                stdout=log,
                stderr=log,
            )
        try:
            until(self._is_ready, START_SECONDS)
        except AssertionError:
            self.kill()
            raise AssertionError(self.said()) from None

    def stop(self) -> None:
        """Ends it in order: it sends or stores what it holds."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it as ``kill -9`` does."""
        self._end(signal.SIGKILL)

    def said(self, lines: int = 40) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all series of one of its own metrics (without ``otelcol_`` and ``_total``) with these labels."""
        total = 0.0
        for line in self._get(self.metrics_port, "/metrics").splitlines():
            found = re.match(rf"otelcol_{name}(?:_total)?(?:__\w+)?(?:\{{(.*)\}})? ([0-9.e+-]+)$", line)
            if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
                total += float(found[2])
        return total

    def _end(self, sig: int) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(sig)
            self.process.wait(timeout=STOP_SECONDS)
            self.process = None

    def _is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError
        with self.log.open("rb") as log:
            log.seek(self.said_before)
            if b"Everything is ready" not in log.read():
                return False
        try:
            return bool(self._get(self.metrics_port, "/metrics"))
        except OSError:
            return False

    @staticmethod
    def _get(port: int, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()


def generate(telemetrygen: Path, *arguments: str) -> None:
    """Runs ``telemetrygen``, as fast as it can; fails with what it says."""
    done = subprocess.run(
        [telemetrygen, *arguments, "--otlp-insecure", "--rate", "0"],
        env=environment({"HOME": os.environ.get("HOME", "/")}),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr


StartCollector = Callable[..., Collector]


@contextmanager
def collectors(folder: Path) -> Iterator[StartCollector]:
    """Gives a function that starts a Collector: the file's name in collector-config/ (or a path), then environment.

    Every one of them has ended when the block is left.
    """
    started: list[Collector] = []

    def begin(config: str | Path, env: Mapping[str, str] | None = None, **options: object) -> Collector:
        place = folder / f"collector-{len(started) + 1}"
        collector = Collector(CONFIGS / config, place, dict(env or {}), **options)  # type: ignore[arg-type]
        started.append(collector)
        collector.start()
        return collector

    try:
        yield begin
    finally:
        for collector in started:
            collector.kill()
