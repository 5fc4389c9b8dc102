"""The examples in docs/queues.md that need a Redis run, each with a real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.markdown import Block, blocks
from support.processes import script
from support.served import environment

ROOT = Path(__file__).parent.parent.parent
SHOWN = [block for block in blocks(ROOT / "docs" / "queues.md") if "redis" in block.words]


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: " ".join(block.words))
def test_the_example_runs(block: Block, redis_url: str, needs: Callable[..., None], tmp_path: Path) -> None:
    needs("redis", *(word.removeprefix("needs-") for word in block.words if word.startswith("needs-")))
    env = environment({"FAILPATH_EXPORTER": "memory", "REDIS_URL": redis_url})
    script(tmp_path, block.body, env)
