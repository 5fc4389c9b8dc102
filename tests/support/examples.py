"""The Python that the documents show, run as a reader would run it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from support.markdown import Block, blocks
from support.served import environment

from failpath_otel.bindings import render_module
from failpath_otel.flows import load_flows

ROOT = Path(__file__).parent.parent.parent
SECONDS = 60


# Each block of a document is a program of its own, which keeps its client; run as one they have one name for several.
KEEP_CLIENTS = (
    "import failpath_otel.steps.known_clients as _known; _remember, _kept = _known.remember, []; "
    "_known.remember = lambda client: (_kept.append(client), _remember(client))[1]"
)


def needed_by(block: Block) -> list[str]:
    """The packages without which the block cannot run."""
    return [word.removeprefix("needs-") for word in block.words if word.startswith("needs-")]


def is_script(block: Block) -> bool:
    return (
        block.language == "python"
        and not {"test", "redis"} & {*block.words}
        and all(map(importlib.util.find_spec, needed_by(block)))
    )


def is_test(block: Block) -> bool:
    return block.language == "python" and "test" in block.words and all(map(importlib.util.find_spec, needed_by(block)))


def run_scripts(document: Path, folder: Path) -> tuple[str, str]:
    """What the document's scripts print, and what it shows of that, without times."""
    script = folder / "example.py"
    found = list(blocks(document))
    # Blank lines in front, so that a traceback names the document's own lines. The first is of a heading.
    lines = [KEEP_CLIENTS]
    for block in filter(is_script, found):
        lines += [""] * (block.line - 1 - len(lines))
        lines += block.body.splitlines()
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    shown = "".join(block.body for block in found if block.language == "text" and "output" in block.words)
    return _without_times(_python([str(script)], folder)), _without_times(shown)


def run_tests(document: Path, folder: Path) -> str:
    """What pytest says of the document's tests."""
    body = "\n\n".join(block.body for block in blocks(document) if is_test(block))
    (folder / "test_example.py").write_text(body, encoding="utf-8")
    return _python(["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py"], folder)


def _python(arguments: list[str], folder: Path) -> str:
    """What a Python process says, standard output and error together. Its working directory has the project's flows.json."""
    (folder / ".failpath").mkdir()
    (folder / ".failpath" / "flows.json").write_bytes((ROOT / ".failpath" / "flows.json").read_bytes())
    # As `failpath-otel generate` would have written it.
    flows = load_flows(ROOT / ".failpath" / "flows.json")
    (folder / "failpath_flows.py").write_text(render_module(flows, ".failpath/flows.json"), encoding="utf-8")
    # Nothing that an example sends leaves this machine.
    env = environment({"FAILPATH_EXPORTER": "memory", "PYTHONIOENCODING": "utf-8"})
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def _without_times(text: str) -> str:
    text = re.sub(r"\b\d\d:\d\d:\d\d\.\d{3}\b", "hh:mm:ss.mmm", text)
    return re.sub(r"\b\d+\.\d+ ?ms\b", "N ms", text)
