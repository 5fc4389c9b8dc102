"""Without a broker: tasks that run where they are sent, other parts beside us, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import context as otel_context

from failpath_otel.errors import ConfigError
from failpath_otel.testing import RecordingClient

celery = pytest.importorskip("celery")
integration = pytest.importorskip("failpath_otel.integrations.celery")


@pytest.fixture
def app() -> Iterator[Any]:
    made = celery.Celery("shop", broker="memory://", set_as_current=False)
    made.conf.task_always_eager = True
    yield made
    made.close()


@pytest.fixture
def client() -> Iterator[RecordingClient]:
    with RecordingClient(flows=False) as made:
        yield made


@pytest.fixture
def connection(client: RecordingClient) -> Iterator[Any]:
    made = integration.connect(client, step_key=lambda task: task.name)
    yield made
    made.disconnect()


def told(client: RecordingClient) -> list[tuple[str, str, str]]:
    return [(event.run_id, event.step_key, event.status) for event in client.events]


@pytest.mark.usefixtures("connection")
def test_an_eager_retry_runs_within_the_attempt_before_it_and_each_ends(app: Any, client: RecordingClient) -> None:
    @app.task(bind=True, max_retries=1, name="charge")
    def charge(self: Any) -> str:
        if self.request.retries == 0:
            raise self.retry(exc=OSError("busy"), countdown=0)
        return "charged"

    with client.run("checkout", "r1"):
        inside = otel_context.get_current()
        charge.delay()
        assert otel_context.get_current() is inside
    statuses = sorted(status for _, _, status in told(client))
    assert statuses == ["error", "running", "running", "success"]


@pytest.mark.usefixtures("connection")
def test_a_task_that_nobody_sends_from_a_run_runs_unrecorded(app: Any, client: RecordingClient) -> None:
    @app.task
    def alone() -> object:
        return client.current_run()

    assert alone.delay().get() is None
    assert client.events == []


@pytest.mark.parametrize("carrier", [{}, "no mapping", 7, {"baggage": "failpath.run.id=%zz"}], ids=repr)
@pytest.mark.usefixtures("connection")
def test_a_task_with_a_broken_carrier_runs_unrecorded(
    carrier: object, app: Any, client: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task(name="ship")
    def ship() -> str:
        return "shipped"

    assert ship.apply_async(headers={"failpath": carrier}).get() == "shipped"
    assert client.events == []
    assert "Signal handler" not in caplog.text


def test_a_step_key_that_raises_leaves_the_task_alone(
    app: Any, client: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(task: Any) -> str:
        raise RuntimeError(task.name)

    @app.task
    def ship() -> str:
        return "shipped"

    connection = integration.connect(client, step_key=broken)
    try:
        with client.run("checkout", "r1"):
            inside = otel_context.get_current()
            assert ship.delay().get() == "shipped"
            assert otel_context.get_current() is inside
    finally:
        connection.disconnect()
    assert client.events == []
    assert "Signal handler" not in caplog.text


def test_what_was_connected_after_us_and_left_before_us_hands_no_run_to_the_next_task(
    app: Any, client: RecordingClient
) -> None:
    tokens: list[Any] = []

    def put_on(**_: object) -> None:  # as OpenTelemetry's instrumentation does: a context of its own, not on top of ours
        tokens.append(otel_context.attach(otel_context.Context()))

    def take_off(**_: object) -> None:
        otel_context.detach(tokens.pop())

    @app.task(name="ship")
    def ship() -> None: ...

    @app.task(name="alone")
    def alone() -> None: ...

    connection = integration.connect(client, flows={"ship": "checkout"}, step_key=lambda task: task.name)
    integration.signals.task_prerun.connect(put_on, weak=False)
    integration.signals.task_postrun.connect(take_off, weak=False)
    outside = otel_context.attach(otel_context.Context())
    try:
        ship.apply_async(task_id="t1")
        alone.delay()
    finally:
        otel_context.detach(outside)
        integration.signals.task_prerun.disconnect(put_on)
        integration.signals.task_postrun.disconnect(take_off)
        connection.disconnect()
    assert told(client) == [("t1", "ship", "running"), ("t1", "ship", "success")]


def test_after_disconnect_tasks_are_none_of_our_business(app: Any, client: RecordingClient, connection: Any) -> None:
    @app.task(name="ship")
    def ship() -> None: ...

    connection.disconnect()
    with client.run("checkout", "r1"):
        ship.delay()
    assert client.events == []


@pytest.mark.usefixtures("connection")
def test_connect_called_again_takes_the_place_of_the_connection_before(
    app: Any, client: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task(name="ship")
    def ship() -> None:
        again.append(integration.connect(client, step_key=lambda task: "again"))

    again: list[Any] = []
    with client.run("checkout", "r1"):
        ship.delay()
        ship.delay()
    for connection in again:
        connection.disconnect()
    # The task in which it was called ends as it began; the next one is a step of the last connection alone.
    assert [(key, status) for _, key, status in told(client)] == [
        *(("ship", "running"), ("ship", "success")),
        *(("again", "running"), ("again", "success")),
    ]
    assert caplog.text.count("connect() was called again") == 1


def test_connect_says_what_it_cannot_use(client: RecordingClient) -> None:
    with pytest.raises(ConfigError, match="client must be a FailpathClient, got 'shop'"):
        integration.connect("shop")
    with pytest.raises(ConfigError, match="step_key must be a function of the task"):
        integration.connect(client, step_key="ship")
