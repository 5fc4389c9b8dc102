"""flows.json: found, readable, and what it declares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from failpath_otel.doctor.finding import Finding, ok, problem, warning
from failpath_otel.errors import ConfigError
from failpath_otel.flows import DEFAULT_PATH, find_flows_file, load_flows, split_strict


def judge_flows(given: Any, folder: Path) -> Iterator[Finding]:
    """Findings about the flows that a client would read.

    Args:
        given: The option ``flows`` as the environment gives it.
        folder: The working directory.
    """
    strict, named = split_strict(given) if isinstance(given, str) else (False, "")
    path = Path(named) if named else find_flows_file(folder)
    if path is None:
        why = "Keys are not checked, and a step that never happens is not missed."
        say = problem if strict else warning
        yield say("flows", f"there is no {DEFAULT_PATH} from {folder} up", why, "failpath-otel init")
        return
    try:
        flows = load_flows(path)
    except ConfigError as error:
        say = problem if named or strict else warning
        yield say("flows", str(error), "Flows are not known then.", "Correct the file; failpath-otel check reads it too.")
        return
    empty = [flow.slug for flow in flows if not flow.nodes]
    steps = sum(len(flow.nodes) for flow in flows)
    if not flows or empty:
        what = f"{path} declares no flow" if not flows else f"{path} declares no step of {', '.join(sorted(empty))}"
        yield warning("flows", what, "A step that never happens is not missed.", 'Add "nodes" with an "sdkStepKey" each.')
    else:
        yield ok("flows", f"{path}: {len(flows)} flows, {steps} steps{', strict' if strict else ''}")
