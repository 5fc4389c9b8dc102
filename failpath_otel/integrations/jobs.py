"""What the integrations of job queues share: which run a job is of, and the job as one attempt of a step."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Generic, TypeVar, cast

from failpath_otel.client import FailpathClient
from failpath_otel.errors import ConfigError
from failpath_otel.flow_key import FlowKey
from failpath_otel.interruption import is_interruption
from failpath_otel.notices import warn_once
from failpath_otel.steps.run import Run
from failpath_otel.steps.step import Step

HEADER: Final = "failpath"
"""The name under which `Run.carrier` lies in a job."""

J = TypeVar("J")
Flow = str | FlowKey[Any]
StepKeyOf = Callable[[J], "str | None"]


def needed(module: str) -> Any:
    """The module of a queue; as a value, since not all of them have types, and none is there when ours are checked.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        ours = f"failpath_otel.integrations.{package}"
        raise ModuleNotFoundError(
            f"{ours} needs {package}, which is not installed: pip install {package}", name=package
        ) from error


def checked_flows(flows: Any) -> Mapping[str, Flow]:
    """The argument ``flows`` of ``connect``, or nothing.

    Raises:
        ConfigError: It is no mapping of names to flows.
    """
    if flows is not None and not isinstance(flows, Mapping):
        raise ConfigError(f"flows must map the names of jobs to flows, such as {{'jobs.nightly': 'report'}}, got {flows!r}")
    return cast("Mapping[str, Flow]", flows or {})


class JobRuns(Generic[J]):
    """Gives jobs their runs. No method raises after construction.

    Raises:
        ConfigError: An argument is of another kind than `connect` of the queues says.
    """

    def __init__(self, client: FailpathClient, flows: Mapping[str, Flow] | None, step_key: StepKeyOf[J] | None) -> None:
        if not isinstance(client, FailpathClient):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"client must be a FailpathClient, got {client!r}")
        if step_key is not None and not callable(step_key):
            raise ConfigError(f"step_key must be a function that is given the job, got {step_key!r}")
        self.client = client
        self._flows = checked_flows(flows)
        self._step_key = step_key

    def carrier(self) -> dict[str, str] | None:
        """The current run for a job that is sent now, or ``None``."""
        try:
            run = self.client.current_run()
            return None if run is None else run.carrier()
        except Exception as raised:
            if is_interruption(raised):
                raise
            warn_once("job-send", "a job is sent without its run", exc_info=True)
            return None

    def run_of(self, carrier: Any, name: str, job_id: object) -> Run[Any] | None:
        """That of the carrier, else the current one, else one of the flow of jobs with this name, known by the job's id."""
        try:
            if carrier is not None:
                return self.client.resume(carrier)
            current = self.client.current_run()
            if current is not None:
                return current
            flow = self._flows.get(name)
            return None if flow is None else self.client.run(flow, job_id)
        except Exception as raised:
            if is_interruption(raised):
                raise
            warn_once("job-run", "a job runs without its run", exc_info=True)
            return None

    def step_of(self, run: Run[Any], job: J) -> Step | None:
        """The step that the job as a whole is, where it is one."""
        try:
            key = None if self._step_key is None else self._step_key(job)
            return run.step(key) if key else None
        except Exception as raised:
            if is_interruption(raised):
                raise
            warn_once("job-step", "a job is no step, for its key could not be had", exc_info=True)
            return None


class JobAttempt:
    """A job under way: its run is current, and its step runs. Begun and ended by the same thread. No method raises.

    Attributes:
        run: The job's.
    """

    def __init__(self, run: Run[Any]) -> None:
        self.run = run
        self._step: Step | None = None
        self._entered = False
        try:
            run.__enter__()
            self._entered = True
        except Exception as raised:
            if is_interruption(raised):
                raise
            warn_once("job-begin", "a job runs without its run", exc_info=True)

    def begin_step(self, step: Step | None) -> None:
        """Begins the attempt of the step that the job is."""
        if step is None:
            return
        try:
            step.__enter__()
            self._step = step
        except Exception as raised:
            if is_interruption(raised):
                raise
            warn_once("job-begin-step", "the beginning of a job could not be recorded", exc_info=True)

    async def begin_step_async(self, step: Step | None) -> None:
        """Like `begin_step`, without holding up the event loop."""
        if step is None:
            return
        try:
            await step.__aenter__()
            self._step = step
        except Exception as raised:
            if is_interruption(raised):
                raise
            warn_once("job-begin-step", "the beginning of a job could not be recorded", exc_info=True)

    def end_step(self, error: BaseException | None) -> None:
        """Ends that attempt; a second call does nothing."""
        step, self._step = self._step, None
        if step is None:
            return
        try:
            step.__exit__(*_described(error))
        except Exception as raised:  # raise_on_send_error is for the service's own calls
            if is_interruption(raised):
                raise
            warn_once("job-end", "the end of a job could not be recorded", exc_info=True)

    def end(self, error: BaseException | None = None) -> None:
        """Ends what is open; the run is current no more."""
        self.end_step(error)
        if not self._entered:
            return
        self._entered = False
        try:
            self.run.__exit__(None, None, None)
        except Exception as raised:
            if is_interruption(raised):
                raise
            warn_once("job-leave", "a run could not be left at the end of a job", exc_info=True)

    async def end_async(self, error: BaseException | None) -> None:
        """Like `end`, without holding up the event loop."""
        step, self._step = self._step, None
        try:
            if step is not None:
                await step.__aexit__(*_described(error))
        except Exception as raised:
            if is_interruption(raised):
                raise
            warn_once("job-end", "the end of a job could not be recorded", exc_info=True)
        finally:
            self.end(error)


def _described(error: BaseException | None) -> tuple[type[BaseException] | None, BaseException | None, TracebackType | None]:
    return (None, None, None) if error is None else (type(error), error, error.__traceback__)
