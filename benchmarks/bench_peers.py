"""The same step in logfire and in langfuse, beside a bare span and ``run.step``, all in one process and all sending nowhere.

Each peer gets an environment of its own under ``build/bench-peers``, made at the first run: neither is a dependency of this
package or of its tests. Every arm has a BatchSpanProcessor whose exporter throws away.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from bench_step import NoEvents, bare, stepped
from harness import NO_LIMIT, QUICK, STEP, STEP_ATTRIBUTES, Arm, NoSpans, Row, client, compare, fn, provider, report, versions

import failpath_otel

PEERS = ("logfire", "langfuse")
FOLDER = Path(__file__).resolve().parent.parent / "build" / "bench-peers"
NEEDED = ("opentelemetry-sdk", "opentelemetry-exporter-otlp", "msgspec", "requests", "urllib3")


def blocks(span: Callable[[], AbstractContextManager[Any]]) -> Arm:
    def arm(calls: int) -> None:
        for _ in range(calls):
            with span():
                fn()

    return arm


def logfire_arm(exporter: NoSpans) -> tuple[Arm, Callable[[], object]]:
    import logfire
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    batches = BatchSpanProcessor(exporter, max_queue_size=NO_LIMIT)
    configured = logfire.configure(
        local=True, send_to_logfire=False, console=False, inspect_arguments=False, additional_span_processors=[batches]
    )
    return blocks(lambda: configured.span(STEP, **STEP_ATTRIBUTES)), batches.force_flush


def langfuse_arm(exporter: NoSpans) -> tuple[Arm, Callable[[], object]]:
    from langfuse import Langfuse

    # The discard port on loopback: nothing could leave even if it tried.
    langfuse = Langfuse(
        public_key="pk-lf-bench", secret_key="sk-lf-bench", base_url="http://127.0.0.1:9", span_exporter=exporter
    )
    return blocks(lambda: langfuse.start_as_current_observation(name=STEP, metadata=STEP_ATTRIBUTES)), langfuse.flush


def measure(peer: str) -> None:
    """Within the peer's environment: prints its rows."""
    exporter = NoSpans()
    arm, flush = {"logfire": logfire_arm, "langfuse": langfuse_arm}[peer](exporter)
    theirs, ours = provider(), provider()
    with client(tracer_provider=ours, exporter=NoEvents()) as failpath:

        def settle() -> None:
            for settled in (flush, theirs.force_flush, ours.force_flush, failpath.flush):
                settled()

        arms = {"bare span": bare(theirs.get_tracer("bench")), "run.step": stepped(failpath), peer: arm}
        compared = compare(arms, calls=1000, rounds=60, settle=settle)
    settle()
    assert exporter.count == 1000 * (compared.rounds + 1), f"{peer} made {exporter.count} spans"
    rows = [(name, compared.ratio(name, "bare span").show(" ×"), compared.micros(name).show(" µs", 1)) for name in arms]
    print(json.dumps({"versions": versions(peer), "rows": rows}))


def environment(peer: str) -> Path:
    """The Python of the peer's environment, which is made where there is none."""
    folder = FOLDER / peer
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not (folder / "made").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", peer, *NEEDED)
        subprocess.run([python, *install], check=True, timeout=600)
        (folder / "made").touch()
    return python


def main() -> None:
    rows = []
    for peer in PEERS:
        python = environment(peer)
        # This package alone is lent to the environment, not all that lies beside it.
        lent = FOLDER / "lent"
        lent.mkdir(exist_ok=True)
        package = lent / "failpath_otel"
        package.unlink(missing_ok=True)
        package.symlink_to(Path(failpath_otel.__file__).parent, target_is_directory=True)
        command = [python, __file__, "--within", peer, *(["--quick"] if QUICK else [])]
        done = subprocess.run(
            command, check=True, timeout=600, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(lent), "PATH": ""}
        )
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"{peer}: {found['versions']}")
        others = {name: f"{ratio} a bare span, {micros}" for name, ratio, micros in found["rows"]}
        named = next(part for part in found["versions"].split(", ") if part.startswith(peer))
        rows += [
            Row(f"the same step in {named}", others[peer]),
            Row("`run.step(key, fn)` in the same process", others["run.step"]),
        ]
    report("peers", rows)


if __name__ == "__main__":
    if "--within" in sys.argv:
        measure(sys.argv[sys.argv.index("--within") + 1])
    else:
        main()
