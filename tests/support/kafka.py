"""A real Kafka broker for tests: one node, started, killed and started again on the same port with the same data."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.collector import ROOT, missing
from support.ports import free_port
from support.served import until

START_SECONDS = 60
PARTITIONS = 4
_CLUSTER = "AAAAAAAAAAAAAAAAAAAAAA"
_JAVA = ("java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")


def jars() -> Path:
    """Where the broker's jars are; without them, or Java, the test is skipped, or fails where CI is set."""
    where = subprocess.run([ROOT / "tools" / "kafka.sh", "--where"], capture_output=True, text=True, check=True).stdout.strip()
    if not Path(where).is_dir() or shutil.which("java") is None:
        missing("no Kafka: `make collector` fetches it and needs Java 17 and Maven")
    return Path(where)


@dataclass
class Broker:
    """One broker."""

    folder: Path
    jars: Path
    port: int = field(default_factory=free_port)
    controller_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "kafka.log"

    def format(self) -> None:
        """Makes an empty store; once, before the first start."""
        self.folder.mkdir(parents=True)
        self._properties.write_text(
            "\n".join(
                [
                    "process.roles=broker,controller",
                    "node.id=1",
                    f"controller.quorum.voters=1@127.0.0.1:{self.controller_port}",
                    f"listeners=PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{self.controller_port}",
                    f"advertised.listeners=PLAINTEXT://{self.address}",
                    "controller.listener.names=CONTROLLER",
                    "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
                    f"log.dirs={self.folder / 'data'}",
                    "offsets.topic.replication.factor=1",
                    "offsets.topic.num.partitions=4",
                    "transaction.state.log.replication.factor=1",
                    "transaction.state.log.min.isr=1",
                    "group.initial.rebalance.delay.ms=0",
                    f"num.partitions={PARTITIONS}",
                ]
            )
        )
        self._run("kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", str(self._properties))

    def start(self) -> None:
        """Starts it and waits until it takes connections."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*_JAVA, "-cp", f"{self.jars}/*", "kafka.Kafka", str(self._properties)], stdout=log, stderr=log, cwd=self.folder
            )
        try:
            until(self._is_open, START_SECONDS)
        except AssertionError:
            self.kill()
            raise AssertionError(self.log.read_text(errors="replace")[-4000:]) from None

    def kill(self) -> None:
        """Ends it as ``kill -9`` does."""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGKILL)
            self.process.wait(timeout=20)
            self.process = None

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _run(self, main: str, *arguments: str) -> None:
        env = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "JAVA_HOME", "LANG")}
        done = subprocess.run(
            [*_JAVA, "-cp", f"{self.jars}/*", main, *arguments],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def _is_open(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


@contextmanager
def broker(folder: Path) -> Iterator[Broker]:
    """A broker that runs, empty, until the end of the block."""
    started = Broker(folder / "kafka", jars())
    started.format()
    started.start()
    try:
        yield started
    finally:
        started.kill()
