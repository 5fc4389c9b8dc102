"""What the integrations of job queues have in common: which run a job is of, and that none of it disturbs the job."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from failpath_otel.errors import ConfigError
from failpath_otel.integrations.jobs import JobAttempt, JobRuns, needed
from failpath_otel.testing import RecordingClient

OF_R1 = {"baggage": "failpath.flow.slug=checkout,failpath.run.id=r1"}


@pytest.fixture
def client() -> Iterator[RecordingClient]:
    with RecordingClient(flows=False) as made:
        yield made


def perform(runs: JobRuns[Any], carrier: Any, error: BaseException | None = None) -> None:
    run = runs.run_of(carrier, "jobs.ship", "id-1")
    if run is not None:
        attempt = JobAttempt(run)
        attempt.begin_step(runs.step_of(run, "ship"))
        attempt.end(error)


def told(client: RecordingClient) -> list[tuple[str, str, str, str]]:
    return [(event.flow_key, event.run_id, event.step_key, event.status) for event in client.events]


def test_the_job_is_of_the_run_that_came_along_else_of_the_current_else_of_its_flow(client: RecordingClient) -> None:
    runs: JobRuns[str] = JobRuns(client, {"jobs.ship": "shipping"}, lambda job: job)
    perform(runs, OF_R1)
    with client.run("checkout", "r2"):
        perform(runs, OF_R1)
        perform(runs, None)
    perform(runs, None)
    assert [one[:2] for one in told(client)[::2]] == [
        *(("checkout", "r1"), ("checkout", "r1")),
        *(("checkout", "r2"), ("shipping", "id-1")),
    ]


def test_a_job_of_nobodys_run_is_none_of_our_business(client: RecordingClient) -> None:
    runs: JobRuns[str] = JobRuns(client, None, lambda job: job)
    assert runs.carrier() is None
    assert runs.run_of(None, "jobs.ship", "id-1") is None


@pytest.mark.parametrize("carrier", [{}, "no mapping", 7, {"baggage": "failpath.run.id=%zz"}], ids=repr)
def test_a_job_with_a_broken_carrier_runs_unrecorded(carrier: object, client: RecordingClient) -> None:
    perform(JobRuns(client, None, lambda job: job), carrier)
    assert client.events == []


def test_a_step_key_that_raises_leaves_the_job_in_its_run(client: RecordingClient) -> None:
    def broken(job: str) -> str:
        raise RuntimeError(job)

    runs = JobRuns(client, None, broken)
    run = runs.run_of(OF_R1, "jobs.ship", "id-1")
    assert run is not None
    attempt = JobAttempt(run)
    attempt.begin_step(runs.step_of(run, "ship"))
    assert client.current_run() is run
    attempt.end()
    assert client.current_run() is None
    assert client.events == []


def test_an_attempt_ends_once_with_the_exception_itself(client: RecordingClient) -> None:
    runs = JobRuns(client, None, lambda job: job)
    run = runs.run_of(OF_R1, "jobs.ship", "id-1")
    assert run is not None
    attempt = JobAttempt(run)
    attempt.begin_step(runs.step_of(run, "ship"))
    attempt.end_step(LookupError("no such order"))
    assert client.current_run() is run  # what the queue does after the job is still of the run
    attempt.end()
    attempt.end()
    assert [one[2:] for one in told(client)] == [("ship", "running"), ("ship", "error")]
    assert [event.error.name for event in client.events if event.error is not None] == ["LookupError"]


def test_what_cannot_be_used_is_said_at_once(client: RecordingClient) -> None:
    bad: Any = "shop"
    with pytest.raises(ConfigError, match="client must be a FailpathClient, got 'shop'"):
        JobRuns(bad, None, None)
    with pytest.raises(ConfigError, match="step_key must be a function that is given the job, got 'shop'"):
        JobRuns(client, None, bad)


@pytest.mark.parametrize("flows", [["nightly"], "nightly", ("nightly", "report")])
def test_flows_that_are_no_mapping_are_refused_at_once(client: RecordingClient, flows: Any) -> None:
    with pytest.raises(ConfigError, match=r"flows must map the names of jobs to flows, such as .*, got .*nightly"):
        JobRuns(client, flows, None)


def test_a_queue_that_is_not_installed_is_named_with_what_to_do() -> None:
    said = r"failpath_otel\.integrations\.no_such_queue needs no_such_queue, which is not installed: pip install no_such_queue"
    with pytest.raises(ModuleNotFoundError, match=said):
        needed("no_such_queue.jobs")


@pytest.mark.parametrize(
    ("integration", "module", "package"),
    [
        ("arq", "arq", "arq"),
        ("celery", "celery", "celery"),
        ("dramatiq", "dramatiq", "dramatiq"),
        ("grpc", "grpc", "grpcio"),
        ("huey", "huey", "huey"),
        ("rq", "rq", "rq"),
    ],
)
def test_an_integration_whose_package_is_missing_says_what_to_install(integration: str, module: str, package: str) -> None:
    code = f"""
import importlib.abc, sys


class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Missing())
import failpath_otel.integrations.{integration}
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr
    assert said.endswith(f"which is not installed: pip install {package}\n")
