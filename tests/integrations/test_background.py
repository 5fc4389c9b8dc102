"""FastAPI: which run is current in background tasks and in dependencies, as docs/web.md tells it."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from support.delivery import until
from support.web import asgi_server

from failpath_otel import Run, current_run, notices, with_context
from failpath_otel.integrations.asgi import FailpathMiddleware
from failpath_otel.testing import RecordingClient


@pytest.fixture
def client() -> Iterator[RecordingClient]:
    notices.forget()
    with RecordingClient(flows=False) as client:
        yield client


@pytest.fixture
def mails(client: RecordingClient) -> dict[str, Any]:
    """What is done in the background: a function, and a coroutine function."""

    @client.step("mail")
    def mail(order: int) -> None:
        pass

    @client.step("mail-async")
    async def mail_async(order: int) -> None:
        pass

    return {"mail": mail, "mail-async": mail_async}


@pytest.mark.parametrize("name", ["mail", "mail-async"])
@pytest.mark.parametrize("step_key", [None, "take-order"])
def test_the_middlewares_run_is_there_in_background_tasks(
    client: RecordingClient, mails: dict[str, Any], name: str, step_key: str | None
) -> None:
    app = FastAPI()

    @app.post("/checkout")
    async def checkout(background: BackgroundTasks) -> None:
        background.add_task(mails[name], 7)

    middleware = FailpathMiddleware(app, client, flow="checkout", step_key=step_key)
    with asgi_server(middleware) as url:
        httpx.post(f"{url}/checkout", headers={"x-request-id": "req_1"})
    first = "" if step_key is None else "take-order:success "
    assert client.story("checkout", "req_1") == f"{first}{name}:success"


@pytest.mark.parametrize("name", ["mail", "mail-async"])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_with_context_takes_the_run_of_an_endpoint_into_its_background_tasks(
    client: RecordingClient, mails: dict[str, Any], name: str, kind: str
) -> None:
    app = FastAPI()

    def checkout(background: BackgroundTasks) -> None:
        with client.run("checkout", "req_1"):
            background.add_task(with_context(mails[name]), 7)

    async def checkout_async(background: BackgroundTasks) -> None:
        checkout(background)

    app.post("/checkout")(checkout if kind == "def" else checkout_async)
    with asgi_server(app) as url:
        httpx.post(f"{url}/checkout")
    until(lambda: client.story("checkout", "req_1") == f"{name}:success")


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_run_that_an_async_dependency_holds_is_there_in_the_endpoint(client: RecordingClient, kind: str) -> None:
    app = FastAPI()

    async def of_the_order() -> AsyncIterator[Run[str]]:
        with client.run("checkout", "req_1") as run:
            yield run

    charge = client.step("charge-card")(lambda: None)

    def checkout(run: Annotated[Any, Depends(of_the_order)]) -> None:
        charge()

    async def checkout_async(run: Annotated[Any, Depends(of_the_order)]) -> None:
        charge()

    app.post("/checkout")(checkout if kind == "def" else checkout_async)
    with asgi_server(app) as url:
        assert httpx.post(f"{url}/checkout").status_code == 200
    assert client.story("checkout", "req_1") == "charge-card:success"


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_run_that_a_synchronous_dependency_holds_is_in_another_thread_and_has_to_be_asked_for(
    client: RecordingClient, kind: str
) -> None:
    app = FastAPI()
    seen: list[object] = []

    def of_the_order() -> Iterator[Run[str]]:
        with client.run("checkout", "req_1") as run:
            yield run

    def checkout(run: Annotated[Any, Depends(of_the_order)]) -> None:
        seen.append(current_run())
        with run, run.step("charge-card"):
            seen.append(current_run())

    async def checkout_async(run: Annotated[Any, Depends(of_the_order)]) -> None:
        checkout(run)

    app.post("/checkout")(checkout if kind == "def" else checkout_async)
    with asgi_server(app) as url:
        assert httpx.post(f"{url}/checkout").status_code == 200
    assert seen[0] is None
    assert seen[1] is not None
    assert client.story("checkout", "req_1") == "charge-card:success"
