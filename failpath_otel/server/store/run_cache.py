"""The writer's memory of runs: their facts and projection, so that a run with news need not be read again."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from failpath_otel.server.runs.fold import Fact, FoldedAttempt, fold_step
from failpath_otel.server.runs.projection import Projection

RunKey = tuple[str, str]
"""Flow slug and run id."""

MAX_FACTS: Final = 50_000


class CachedRun:
    """A run as the writer knows it: every fact of it, folded step by step. The only mutable thing around the pure fold."""

    __slots__ = ("_facts", "flow_id", "projection", "run_id", "size", "steps")

    def __init__(self, run_id: int, flow_id: int, projection: Projection | None) -> None:
        """``projection`` is what the store holds; ``None`` for a new run."""
        self.run_id = run_id
        self.flow_id = flow_id
        self.projection = projection
        self.size = 0
        self.steps: dict[str, tuple[FoldedAttempt, ...]] = {}
        # The facts of steps that have more than one.
        self._facts: dict[str, list[Fact]] = {}

    def add(self, facts: list[Fact]) -> None:
        """Takes facts that are not known yet and folds the steps that they are of anew."""
        touched: set[str] = set()
        for fact in facts:
            key = fact.step_key
            known = self.steps.get(key)
            if known is None:
                # Mostly a step has one event, and then its attempt holds all there is to keep.
                self.steps[key] = fold_step((fact,))
                continue
            own = self._facts.get(key)
            if own is None:
                self._facts[key] = own = [known[0].decided_by]
            own.append(fact)
            touched.add(key)
        for key in touched:
            self.steps[key] = fold_step(self._facts[key])
        self.size += len(facts)


class RunCache:
    """The runs that had news last, at most so many that together they hold `MAX_FACTS` facts, and always the very last."""

    def __init__(self, max_facts: int = MAX_FACTS) -> None:
        """``max_facts`` bounds the memory: a fact is some 300 bytes."""
        self._max_facts = max_facts
        self._runs: OrderedDict[RunKey, CachedRun] = OrderedDict()
        self._facts = 0

    def get(self, key: RunKey) -> CachedRun | None:
        """The run, if it is still known."""
        return self._runs.get(key)

    def keep(self, key: RunKey, run: CachedRun, new_facts: int) -> None:
        """Remembers a run that just got ``new_facts`` facts, and forgets others for it."""
        known = key in self._runs
        self._runs[key] = run
        self._runs.move_to_end(key)
        self._facts += new_facts if known else run.size
        while self._facts > self._max_facts and len(self._runs) > 1:
            _, oldest = self._runs.popitem(last=False)
            self._facts -= oldest.size

    def discard(self, key: RunKey) -> None:
        """Forgets a run, if it is known."""
        run = self._runs.pop(key, None)
        if run is not None:
            self._facts -= run.size

    def clear(self) -> None:
        """Forgets all."""
        self._runs.clear()
        self._facts = 0
