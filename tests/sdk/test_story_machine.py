"""Nested runs and steps in any order, in several threads, against a model of what the event log must say."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, TraceIdRatioBased
from support.tracing import ids_are_consistent

from failpath_otel import Run, Step, current_run
from failpath_otel.testing import RecordingClient

THREADS = 2
KEYS = st.sampled_from(["a", "b", "c"])
METADATA = st.dictionaries(st.sampled_from(["x", "y", "z"]), st.integers(0, 9), max_size=2)
ERRORS = st.sampled_from([ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])

Log = list[tuple[str, str, str, str, dict[str, int]]]


class Thread:
    """One thread, what is entered in it, and what the model says is current there."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self.entered: list[tuple[Any, ...]] = []

    def do(self, work: Callable[[], Any]) -> Any:
        return self._pool.submit(work).result(30)

    def close(self) -> None:
        self._pool.shutdown()

    @property
    def run(self) -> Run[str] | None:
        return next((entry[1] for entry in reversed(self.entered) if entry[0] == "run"), None)

    @property
    def step(self) -> Step | None:
        return next((entry[1] for entry in reversed(self.entered) if entry[0] == "step"), None)


class Stories(RuleBasedStateMachine):
    """Each rule acts in one thread; the events must be those of the model, in the same order."""

    runs = Bundle("runs")
    shared_steps = Bundle("shared_steps")

    @initialize(sampler=st.sampled_from(["on", "off", "half", "none"]))
    def begin(self, sampler: str) -> None:
        provider: Any = {
            "on": lambda: TracerProvider(shutdown_on_exit=False),
            "off": lambda: TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False),
            "half": lambda: TracerProvider(sampler=TraceIdRatioBased(0.5), shutdown_on_exit=False),
            "none": trace.NoOpTracerProvider,
        }[sampler]()
        self.client = RecordingClient(tracer_provider=provider, default_metadata={"x": -1}, flows=False)
        self.threads = [Thread() for _ in range(THREADS)]
        self.expected: Log = []
        self.numbers = itertools.count()

    # Runs

    @rule(target=runs, metadata=METADATA)
    def make_run(self, metadata: dict[str, int]) -> tuple[Run[str], dict[str, int]]:
        run = self.client.run("flow", str(next(self.numbers)), metadata=metadata)
        return run, {"x": -1, **metadata}

    @rule(run=runs, number=st.integers(0, THREADS - 1))
    def enter_run(self, run: tuple[Run[str], dict[str, int]], number: int) -> None:
        thread = self.threads[number]
        thread.do(run[0].__enter__)
        thread.entered.append(("run", run[0], run[1]))

    # Steps

    @rule(run=runs, key=KEYS, metadata=METADATA, number=st.integers(0, THREADS - 1))
    def enter_step(self, run: tuple[Run[str], dict[str, int]], key: str, metadata: dict[str, int], number: int) -> None:
        self._enter(self.threads[number], run[0].step(key, metadata=metadata), run[0], {**run[1], **metadata})

    @rule(target=shared_steps, key=KEYS, metadata=METADATA)
    def make_step_of_the_current_run(self, key: str, metadata: dict[str, int]) -> tuple[Step, dict[str, int]]:
        return self.client.step(key, metadata=metadata), metadata

    @rule(step=shared_steps, number=st.integers(0, THREADS - 1))
    def enter_step_of_the_current_run(self, step: tuple[Step, dict[str, int]], number: int) -> None:
        """The same Step object may be open several times, in both threads."""
        thread = self.threads[number]
        entry = next((entry for entry in reversed(thread.entered) if entry[0] == "run"), None)
        if entry is None:
            thread.do(step[0].__enter__)
            thread.entered.append(("step", step[0], None, {}))
        else:
            self._enter(thread, step[0], entry[1], {**entry[2], **step[1]})

    def _enter(self, thread: Thread, step: Step, run: Run[str], metadata: dict[str, int]) -> None:
        thread.do(step.__enter__)
        thread.entered.append(("step", step, run, dict(metadata)))
        self.expected.append((run.run_id, step.step_key, "running", "", dict(metadata)))

    @rule(values=METADATA, number=st.integers(0, THREADS - 1))
    def set_metadata(self, values: dict[str, int], number: int) -> None:
        thread = self.threads[number]
        if thread.step is not None:
            entry = next(entry for entry in reversed(thread.entered) if entry[0] == "step")
            thread.do(lambda: entry[1].set_metadata(**values))
            entry[3].update(values)

    @precondition(lambda self: any(thread.entered for thread in self.threads))
    @rule(number=st.integers(0, THREADS - 1), error=st.none() | ERRORS)
    def leave(self, number: int, error: type[BaseException] | None) -> None:
        thread = self.threads[number]
        if thread.entered:
            self._leave(thread, error)

    def _leave(self, thread: Thread, error: type[BaseException] | None) -> None:
        kind, block, *rest = thread.entered.pop()
        raised = None if error is None else error()
        thread.do(lambda: block.__exit__(error, raised, None))
        if kind == "step" and rest[0] is not None:
            status, name = ("success", "") if error is None else ("error", error.__name__)
            self.expected.append((rest[0].run_id, block.step_key, status, name, rest[1]))

    @rule(run=consumes(runs), key=KEYS, number=st.integers(0, THREADS - 1))
    def skip(self, run: tuple[Run[str], dict[str, int]], key: str, number: int) -> None:
        self.threads[number].do(lambda: run[0].skip(key))
        self.expected.append((run[0].run_id, key, "skipped", "", run[1]))

    @rule(run=runs, key=KEYS, error=st.none() | ERRORS, number=st.integers(0, THREADS - 1))
    def call(self, run: tuple[Run[str], dict[str, int]], key: str, error: type[BaseException] | None, number: int) -> None:
        def work() -> None:
            try:
                run[0].step(key, _raising(error))
            except BaseException as caught:
                assert error is not None
                assert type(caught) is error  # noqa: PT017 - also those that pytest.raises is not made for

        self.threads[number].do(work)
        status, name = ("success", "") if error is None else ("error", error.__name__)
        self.expected.append((run[0].run_id, key, "running", "", run[1]))
        self.expected.append((run[0].run_id, key, status, name, run[1]))

    # What must hold

    @invariant()
    def the_log_is_that_of_the_model(self) -> None:
        if not hasattr(self, "client"):
            return
        told = [
            (event.run_id, event.step_key, event.status, event.error.name if event.error else "", event.metadata)
            for event in self.client.events
        ]
        assert told == self.expected
        assert ids_are_consistent(self.client.events)

    @invariant()
    def each_thread_has_its_own_run_and_span_current(self) -> None:
        for thread in getattr(self, "threads", ()):
            assert thread.do(current_run) is thread.run
            if thread.step is not None:
                assert thread.do(partial(_is_current, thread.step))

    def teardown(self) -> None:
        for thread in getattr(self, "threads", ()):
            while thread.entered:
                self._leave(thread, None)
            assert thread.do(current_run) is None
            assert not thread.do(lambda: trace.get_current_span().is_recording())
            thread.close()
        self.the_log_is_that_of_the_model()


def _is_current(step: Step) -> bool:
    return not step.span.is_recording() or trace.get_current_span() is step.span


def _raising(error: type[BaseException] | None) -> Callable[[], None]:
    def act() -> None:
        if error is not None:
            raise error

    return act


Stories.TestCase.settings = settings(settings.get_profile("here"), max_examples=60, stateful_step_count=30)
test_stories = Stories.TestCase
