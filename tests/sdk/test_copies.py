"""Copies of clients, runs and steps, and what is pickled: in this process and in others."""

from __future__ import annotations

import copy
import dataclasses
import multiprocessing
import pickle
import sys
from typing import Any

import pytest
from opentelemetry import trace
from support.tracing import Tracing

from failpath_otel import FailpathClient, Run, Step
from failpath_otel.testing import RecordingClient


@dataclasses.dataclass
class Held:
    """What holds ours."""

    client: FailpathClient
    run: Run[str]
    step: Step


def test_what_holds_a_client_a_run_or_a_step_can_be_copied(client: RecordingClient) -> None:
    run = client.run("checkout", "1")
    held = Held(client, run, run.step("charge"))
    for made in (copy.copy(held), copy.deepcopy(held), dataclasses.replace(held)):
        assert (made.client, made.run, made.step) == (client, run, held.step)
    assert dataclasses.asdict(held)["client"] is client
    with copy.deepcopy(held).step:
        pass
    assert client.story("checkout", "1") == "charge:success"


def test_what_is_pickled_goes_on_with_the_same_client_in_this_process(client: RecordingClient, tracing: Tracing) -> None:
    with (
        client.run("checkout", "1", metadata={"plan": "pro"}) as run,
        tracing.tracer.start_as_current_span("request") as request,
    ):
        held = pickle.loads(pickle.dumps(Held(client, run, run.step("charge", metadata={"try": 1}))))
        assert held.client is client
        assert (held.run.flow_key, held.run.run_id) == ("checkout", "1")
    with held.run:
        assert trace.get_current_span().get_span_context().trace_id == request.get_span_context().trace_id
        with held.step:
            pass
    assert client.story("checkout", "1") == "charge:success"
    assert client.events[-1].metadata == {"try": 1}


def test_what_a_pickled_run_was_told_of_delivery_it_keeps(client: RecordingClient) -> None:
    """As an engine pickles the arguments of a workflow. One without a name goes on recording nothing."""
    for delivery in ("await", "background", None):
        run = client.run("checkout", "1", delivery=delivery)  # type: ignore[arg-type]
        assert pickle.loads(pickle.dumps(run)).recorder.waits is (delivery == "await")
    pickle.loads(pickle.dumps(client.resume({}))).step("charge", lambda: None)
    assert client.events == []


def test_a_step_of_whatever_run_is_current_can_be_pickled(client: RecordingClient) -> None:
    step = pickle.loads(pickle.dumps(client.step("charge")))
    with client.run("checkout", "1"), step:
        pass
    assert client.story("checkout", "1") == "charge:success"


CHILD = """
import pickle, sys
import failpath_otel
{make}
held = pickle.loads(bytes.fromhex(sys.stdin.read()))
for _ in range(2):
    held.step("charge", lambda: None)
print(client.story("checkout", "1") if {counts} else "nothing")
"""


@pytest.mark.parametrize(
    "make", ["from failpath_otel.testing import RecordingClient; client = RecordingClient(flows=False)", ""]
)
def test_a_run_that_is_pickled_resumes_with_the_client_of_the_other_process(client: RecordingClient, make: str) -> None:
    import subprocess

    child = subprocess.run(
        [sys.executable, "-c", CHILD.format(make=make, counts=bool(make))],
        input=pickle.dumps(client.run("checkout", "1")).hex(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    if make:
        assert (child.stdout.strip(), child.stderr) == ("charge:success,success", "")
    else:
        assert child.stdout.strip() == "nothing"
        assert child.stderr.count("has no FailpathClient") == 1


def _ship(run: Run[str]) -> str:
    run.step("ship", lambda: None)
    return run.run_id


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_run_can_be_handed_to_a_pool_of_processes(tmp_path: Any) -> None:
    from concurrent.futures import ProcessPoolExecutor

    path = tmp_path / "events.jsonl"
    with FailpathClient(exporter=f"jsonl:{path}", flows=False) as client:
        run = client.run("checkout", "1")
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
            assert pool.submit(_ship, run).result(60) == "1"
    assert path.read_text(encoding="utf-8").count('"status":"success"') == 1
