"""flows.json and spans.json: found, readable, and what they declare."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from failpath_otel.doctor.finding import Finding, ok, problem, warning
from failpath_otel.errors import ConfigError
from failpath_otel.flows import DEFAULT_PATH, find_flows_file, load_flows, split_strict
from failpath_otel.rules import SpanRules, find_rules_file, load_rules


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


def judge_rules(given: Any, folder: Path) -> tuple[Finding, SpanRules]:
    """A finding about the span rules that a client would use, and the rules.

    Args:
        given: The option ``rules`` as the environment gives it.
        folder: The working directory.
    """
    path = Path(given) if isinstance(given, str) else find_rules_file(folder)
    if path is None or given is False:
        return ok("rules", "no span rules: only spans that carry the failpath attributes are steps"), SpanRules()
    try:
        rules = load_rules(path)
    except ConfigError as error:
        why = "No rules are used then, and spans without the failpath attributes are no steps."
        return problem("rules", str(error), why, "Correct the file at the place that is named."), SpanRules()
    if not rules:
        return warning("rules", f"{path} has no rules", "It makes no span a step.", "failpath-otel init --rules"), rules
    return ok("rules", f"{path}: {len(rules)} rules"), rules


def judge_targets(rules: SpanRules, given: Any, folder: Path) -> Iterator[Finding]:
    """Findings about rules whose flow or step flows.json does not declare; what comes from attributes is not known here."""
    named = split_strict(given)[1] if isinstance(given, str) else ""
    path = Path(named) if named else find_flows_file(folder)
    try:
        flows = load_flows(path) if path is not None else None
    except ConfigError:
        return  # which is reported where flows are judged
    for rule in rules if flows else ():
        flow = flows.get(rule.flow) if flows and isinstance(rule.flow, str) else None
        unknown = isinstance(rule.flow, str) and flow is None
        if unknown or (flow is not None and isinstance(rule.step, str) and rule.step not in flow.step_keys):
            what = f"flow {rule.flow!r}" if unknown else f"step {rule.step!r} of flow {rule.flow!r}"
            yield warning(
                "rules",
                f"{rules.path} makes spans {what}, which {path} does not declare",
                "It is recorded as discovered, and the declared step that was meant stays missing.",
                "Write the same in both files.",
            )
