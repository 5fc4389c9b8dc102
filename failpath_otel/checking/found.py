"""The flows that a source tree reports, where none are declared yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from failpath_otel.checking.evaluate import Evaluator
from failpath_otel.checking.modules import Modules
from failpath_otel.checking.source import UnreadableError
from failpath_otel.checking.uses import Use, uses_in


@dataclass(frozen=True)
class FoundFlows:
    """What code reports.

    Attributes:
        steps: The step keys of each flow, in the order in which they stand in the files.
        without_flow: Step keys of which it is not known which flow they are of.
        unresolved: How many flow and step keys are known only when the code runs.
        unread: Files that could not be read or parsed.
    """

    steps: Mapping[str, tuple[str, ...]]
    without_flow: tuple[str, ...] = ()
    unresolved: int = 0
    unread: tuple[Path, ...] = ()


def flows_in(paths: Sequence[Path]) -> FoundFlows:
    """Looks through Python files for flows and steps, without importing or running anything.

    A step whose run may be of any flow is taken as one of the only flow that is found; where there are several, or its run may
    be of several, it is reported apart.
    """
    modules = Modules()
    evaluator = Evaluator(modules, ())
    uses: list[Use] = []
    unread: list[Path] = []
    for path in paths:
        try:
            source = modules.read(path)
        except (UnreadableError, OSError):
            unread.append(path)
            continue
        found = [use for use in uses_in(source, evaluator) if use.certain]
        uses += sorted(found, key=lambda use: (use.node.lineno, use.node.col_offset))
    return _sorted_out(uses, tuple(unread))


def _sorted_out(uses: Sequence[Use], unread: tuple[Path, ...]) -> FoundFlows:
    steps: dict[str, dict[str, None]] = {}
    for use in uses:
        for slug in sorted((use.keys if use.kind == "flow" else use.flows) or ()):
            steps.setdefault(slug, {})
    without: dict[str, None] = {}
    for use in uses:
        if use.kind == "flow" or use.keys is None:
            continue
        flows = frozenset(steps) if use.flows is None else use.flows
        place = steps[next(iter(flows))] if len(flows) == 1 else without
        place.update(dict.fromkeys(sorted(use.keys)))
    known = {key for keys in steps.values() for key in keys}
    return FoundFlows(
        {slug: tuple(keys) for slug, keys in steps.items()},
        tuple(key for key in without if key not in known),
        sum(use.keys is None for use in uses),
        unread,
    )
