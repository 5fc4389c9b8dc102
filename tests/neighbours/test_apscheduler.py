"""With real schedulers of APScheduler, an execution has the run that is its own, whoever added the job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from support.processes import SECONDS
from support.served import until

from failpath_otel.integrations.apscheduler import kwargs_with_run, scheduled
from failpath_otel.testing import RecordingClient

pytestmark = pytest.mark.slow

JOBS = """
from failpath_otel.integrations.apscheduler import scheduled
from failpath_otel.testing import RecordingClient

failpath = RecordingClient(flows=False)


@scheduled(failpath, step_key="remind")
def remind(order_id):
    failpath.step(order_id)(lambda: None)()
"""


@pytest.fixture
def client(needs: Callable[..., None]) -> Iterator[RecordingClient]:
    needs("apscheduler")
    with RecordingClient(flows=False) as made:
        yield made


def told(client: RecordingClient) -> list[tuple[str, str, str]]:
    return [(event.flow_key, event.step_key, event.status) for event in client.events]


def test_each_execution_is_a_run_of_its_own_and_ends_as_the_function_does(client: RecordingClient) -> None:
    from apscheduler.schedulers.background import BackgroundScheduler

    @scheduled(client, flow="report", step_key="nightly")
    def nightly() -> None:
        raise LookupError("nothing to report")

    scheduler = BackgroundScheduler()
    scheduler.start()
    try:
        with client.run("checkout", "r1"):
            scheduler.add_job(nightly, "interval", seconds=0.05)
        until(lambda: len({event.run_id for event in client.events if event.status == "error"}) >= 3, SECONDS)
    finally:
        scheduler.shutdown()
    assert set(told(client)) == {("report", "nightly", "running"), ("report", "nightly", "error")}
    assert {event.error.name for event in client.events if event.error is not None} == {"LookupError"}
    assert all(len([e for e in client.events if e.run_id == event.run_id]) == 2 for event in client.events)


def test_jobs_of_an_asyncio_scheduler_do_not_stay_in_the_run_of_the_request_that_added_one(client: RecordingClient) -> None:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    bare: list[Any] = []
    own: list[Any] = []

    enough = asyncio.Event()

    async def undecorated() -> None:
        bare.append(client.current_run())
        if len(own) >= 5 and any(bare):
            enough.set()

    @scheduled(client, flow="report", step_key="tick")
    async def tick() -> None:
        own.append(client.current_run())

    @scheduled(client, step_key="remind")
    async def remind(order_id: str) -> None:
        await asyncio.sleep(0)
        client.step(order_id)(lambda: None)()

    @scheduled(client)
    async def alone() -> None:
        own.append(client.current_run())

    async def request(scheduler: Any) -> None:
        with client.run("checkout", "r1"):
            scheduler.add_job(remind, kwargs=kwargs_with_run(client, order_id="order-7"))
            scheduler.add_job(alone)

    async def main() -> None:
        scheduler = AsyncIOScheduler()
        scheduler.start()
        scheduler.add_job(undecorated, "interval", seconds=0.05)
        scheduler.add_job(tick, "interval", seconds=0.05)
        await asyncio.create_task(request(scheduler))
        await asyncio.wait_for(enough.wait(), SECONDS)
        scheduler.shutdown()

    asyncio.run(main())
    assert any(bare), "APScheduler has mended what this is about: jobs run in the context of whoever called add_job last"
    assert None in own  # that of `alone`
    assert {run.flow_key for run in own if run is not None} == {"report"}
    of_the_request = [(event.step_key, event.status) for event in client.events if event.run_id == "r1"]
    assert of_the_request == [
        *(("remind", "running"), ("order-7", "running"), ("order-7", "success")),
        ("remind", "success"),
    ]


def test_a_job_that_lay_in_a_store_goes_on_with_the_run_of_whoever_added_it(
    client: RecordingClient, needs: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("sqlalchemy")
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
    from apscheduler.schedulers.background import BackgroundScheduler
    from sqlalchemy import NullPool

    (tmp_path / "jobs_in_a_store.py").write_text(JOBS)
    monkeypatch.syspath_prepend(tmp_path)
    import jobs_in_a_store  # type: ignore[import-not-found]

    def scheduler() -> Any:
        store = SQLAlchemyJobStore(f"sqlite:///{tmp_path}/jobs.db", engine_options={"poolclass": NullPool})
        return BackgroundScheduler(jobstores={"default": store})

    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    first = scheduler()
    first.start(paused=True)
    with client.run("checkout", "r1"):
        kwargs = kwargs_with_run(client, order_id="order-7")
        first.add_job("jobs_in_a_store:remind", "date", run_date=tomorrow, kwargs=kwargs, id="r", misfire_grace_time=None)
    first.shutdown()
    second = scheduler()
    second.start()
    second.modify_job("r", next_run_time=tomorrow - timedelta(days=1))
    stored = jobs_in_a_store.failpath
    try:
        until(lambda: len(stored.events) == 4, SECONDS)
    finally:
        second.shutdown()
        stored.shutdown()
    assert {event.run_id for event in stored.events} == {"r1"}
    assert [event.step_key for event in stored.events] == ["remind", "order-7", "order-7", "remind"]
