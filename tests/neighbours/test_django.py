"""Django with FailpathMiddleware in MIDDLEWARE: by its test client, and under real servers of WSGI and ASGI."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from support.delivery import until
from support.tracing import told
from support.web import asgi_server, wsgi_server

from failpath_otel import ConfigError, FailpathClient, current_run, notices
from failpath_otel.testing import RecordingClient

OURS = "failpath_otel.integrations.django.FailpathMiddleware"
CALLER = {"HTTP_BAGGAGE": "failpath.flow.slug=order,failpath.run.id=theirs", "HTTP_TRACEPARENT": f"00-{'1' * 32}-{'2' * 16}-01"}
shop = FailpathClient(exporter="memory", flows=False)
look_up = shop.step("look-up")(lambda: None)


class Inner:
    """A middleware of the project's that refuses before any view is asked."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        if request.GET.get("how") == "middleware":
            raise KeyError("session")
        return self.get_response(request)


def _parts(request: Any) -> Iterator[bytes]:
    how = request.GET.get("how")
    for _ in range(2):
        look_up()
        yield b"x"
    if how == "raises":
        raise ValueError("declined")
    for _ in range(10_000 if how == "endless" else 0):
        yield b"x" * 100_000


def _views() -> list[Any]:
    from django.http import HttpResponse, HttpResponseNotFound, StreamingHttpResponse
    from django.urls import path

    def checkout(request: Any) -> Any:
        look_up()
        how = request.GET.get("how", "200")
        if how == "raises":
            raise ValueError("declined")
        return HttpResponseNotFound() if how == "404" else HttpResponse(status=int(how))

    async def checkout_async(request: Any) -> Any:
        return checkout(request)

    def stream(request: Any) -> Any:
        return StreamingHttpResponse(_parts(request))

    async def stream_async(request: Any) -> Any:
        async def parts() -> Any:
            for part in _parts(request):
                yield part

        return StreamingHttpResponse(parts())

    return [
        path("checkout", checkout),
        path("checkout-async", checkout_async),
        path("stream", stream),
        path("stream-async", stream_async),
    ]


@pytest.fixture(scope="module", autouse=True)
def project(needs: Callable[..., None]) -> None:
    """A Django project, configured once for this process."""
    needs("django")
    import django
    from django.conf import settings

    urls: Any = types.ModuleType("urls_of_the_shop")
    urls.urlpatterns = _views()
    sys.modules[urls.__name__] = urls
    settings.configure(
        ROOT_URLCONF=urls.__name__,
        ALLOWED_HOSTS=["*"],
        MIDDLEWARE=[OURS, f"{__name__}.Inner"],
        LOGGING_CONFIG=None,
        DEBUG=False,
        SECRET_KEY="for this test",
    )
    sys.modules[__name__] = sys.modules.get(__name__) or _this_module()
    django.setup()


def _this_module() -> Any:
    module = types.ModuleType(__name__)
    vars(module).update(globals())
    return module


@pytest.fixture
def configured() -> Iterator[Callable[..., None]]:
    """Sets FAILPATH in the settings."""
    from django.test import override_settings

    notices.forget()
    with contextlib.ExitStack() as stack:

        def configure(**options: Any) -> None:
            given = {"client": shop, "flow": {"/*": "checkout"}, **options}
            stack.enter_context(override_settings(FAILPATH=given))

        yield configure


@pytest.mark.parametrize("path", ["/checkout", "/checkout-async"])
@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ("200", "success"),
        ("404", "success"),
        ("503", "error(HTTP 503)"),
        ("raises", "error(ValueError)"),
    ],
)
def test_the_test_client_passes_through_it_and_the_step_has_the_outcome_of_the_answer(
    configured: Any, failpath_client: RecordingClient, path: str, how: str, outcome: str
) -> None:
    from django.test import Client

    configured(step_key="take-order")
    Client(raise_request_exception=False).post(f"{path}?how={how}", headers={"x-request-id": "req_1"})
    failpath_client.assert_story("checkout", f"take-order:{outcome} look-up:success", "req_1")
    assert current_run() is None


def test_what_fails_before_the_view_shows(configured: Any, failpath_client: RecordingClient) -> None:
    from django.test import Client

    configured(step_key="take-order")
    Client(raise_request_exception=False).get("/checkout?how=middleware")
    failpath_client.assert_story("checkout", "take-order:error(HTTP 500)")


def test_exceptions_reach_the_test_client_as_they_would_without_us(configured: Any, failpath_client: RecordingClient) -> None:
    from django.test import Client

    configured()
    with pytest.raises(ValueError, match="declined"):
        Client().get("/checkout?how=raises")


def test_a_callers_run_is_gone_on_with_where_that_is_allowed(configured: Any, failpath_client: RecordingClient) -> None:
    from django.test import Client

    configured()
    Client().get("/checkout", **CALLER)
    failpath_client.assert_story("order", "look-up:success", "theirs")
    assert {event.trace_id for event in failpath_client.events} == {"1" * 32}
    configured(accept_incoming=False, run_id=lambda request: "ours")
    Client().get("/checkout", **CALLER)
    failpath_client.assert_story("checkout", "look-up:success", "ours")


@pytest.fixture(params=["wsgi", "asgi"])
def serve(request: pytest.FixtureRequest) -> Callable[[], Any]:
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler

    return lambda: wsgi_server(WSGIHandler()) if request.param == "wsgi" else asgi_server(ASGIHandler(), lifespan="off")


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
@pytest.mark.parametrize("path", ["/stream", "/stream-async"])
@pytest.mark.parametrize(("how", "outcome"), [("200", "success"), ("raises", "error(ValueError)")])
def test_a_stream_is_made_within_the_run_and_ends_the_step(
    configured: Any, failpath_client: RecordingClient, serve: Any, path: str, how: str, outcome: str
) -> None:
    configured(step_key="take-order")
    with serve() as url, contextlib.suppress(httpx.TransportError):
        httpx.get(f"{url}{path}?how={how}", headers={"x-request-id": "req_1"}, timeout=60)
    until(lambda: told(failpath_client.events)[-1].startswith("take-order:") and len(failpath_client.events) == 6)
    failpath_client.assert_story("checkout", f"take-order:{outcome} look-up:success,success", "req_1")


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_client_that_goes_away_leaves_no_step_running(configured: Any, failpath_client: RecordingClient, kind: str) -> None:
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler

    configured(step_key="take-order")
    path = "stream" if kind == "wsgi" else "stream-async"
    with (
        wsgi_server(WSGIHandler()) if kind == "wsgi" else asgi_server(ASGIHandler(), lifespan="off") as url,
        httpx.stream("GET", f"{url}/{path}?how=endless", timeout=60) as answer,
    ):
        assert next(answer.iter_raw())
    until(lambda: any(event.step_key == "take-order" and event.is_outcome for event in failpath_client.events))


def test_requests_of_real_servers_have_a_run(configured: Any, failpath_client: RecordingClient, serve: Any) -> None:
    configured(step_key=lambda request: request.path.strip("/"))
    with serve() as url:
        for path in ("/checkout", "/checkout-async"):
            assert httpx.get(url + path, headers={"x-request-id": "req_1"}, timeout=60).status_code == 200
    story = "checkout:success look-up:success,success checkout-async:success"
    until(lambda: failpath_client.story("checkout", "req_1") == story)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "settings.FAILPATH must be a dict"),
        ({"flow": "checkout"}, r"settings.FAILPATH\['client'\] must be a FailpathClient"),
        ({"client": shop, "flows": "checkout"}, "did you mean 'flow'"),
        ({"client": shop, "step_key": 7}, "step_key must be"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_when_the_project_starts(given: Any, message: str) -> None:
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import override_settings

    with override_settings(FAILPATH=given), pytest.raises(ConfigError, match=message):
        WSGIHandler()


def test_the_client_may_be_named_by_its_path(configured: Any, failpath_client: RecordingClient) -> None:
    from django.test import Client

    configured(client=f"{__name__}.shop")
    Client().get("/checkout")
    failpath_client.assert_story("checkout", "look-up:success")
