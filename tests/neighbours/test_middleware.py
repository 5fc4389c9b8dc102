"""The middleware around applications that are instrumented within it: the run of the request is current where it is served."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.http_sink import HttpSink
from support.processes import arrived, once, script, settings

SHOP = """
import json
from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import TracerProvider
from failpath_otel import FailpathClient

trace.set_tracer_provider(TracerProvider())
failpath = FailpathClient(flows=False)
headers = {"baggage": "tenant=7,failpath.flow.slug=checkout,failpath.run.id=a-strangers", "x-request-id": "ours"}

@failpath.step("charge")
def charge():
    pass

def serve():
    charge()
    return dict(baggage.get_all())
"""

FLASK = """
from flask import Flask
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from failpath_otel.integrations.wsgi import FailpathMiddleware

app = Flask("shop")
app.post("/checkout")(serve)
app.post("/other", endpoint="other")(serve)
FlaskInstrumentor().instrument_app(app)
app.wsgi_app = FailpathMiddleware(app.wsgi_app, failpath, flow={"/checkout": "checkout"}, accept_incoming=False)
for path in ("/checkout", "/other"):
    print(json.dumps(app.test_client().post(path, headers=headers).json))
failpath.shutdown()
"""

FASTAPI = """
from fastapi import FastAPI
from fastapi.testclient import TestClient
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from failpath_otel.integrations.asgi import FailpathMiddleware

app = FastAPI()
app.post("/checkout")(serve)
app.post("/other")(serve)
FastAPIInstrumentor.instrument_app(app)
outermost = FailpathMiddleware(app, failpath, flow={"/checkout": "checkout"}, accept_incoming=False)
with TestClient(outermost) as client:
    for path in ("/checkout", "/other"):
        print(json.dumps(client.post(path, headers=headers).json()))
failpath.shutdown()
"""


@pytest.mark.parametrize(("framework", "served"), [("flask", FLASK), ("fastapi", FASTAPI)])
def test_steps_are_of_the_requests_run_and_never_of_a_strangers(
    framework: str, served: str, sink: HttpSink, tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs(framework, f"opentelemetry.instrumentation.{framework}")
    done = script(tmp_path, SHOP + served, settings(sink, {"PYTHONWARNINGS": "ignore"}))
    with_flow, without_flow = map(json.loads, done.stdout.splitlines())
    assert with_flow == {"tenant": "7", "failpath.flow.slug": "checkout", "failpath.run.id": "ours"}
    assert without_flow == {"tenant": "7"}
    assert arrived(sink) == {"ours": once(("charge", "running"), ("charge", "success"))}
