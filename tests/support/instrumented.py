"""A script for tests: everything that has an instrumentation, used once, with steps of ours in it and without."""

INSTRUMENTED = """
import asyncio, threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import celery, django, fastapi, flask, httpx, requests, sqlalchemy, urllib3
from celery.contrib.testing.worker import start_worker
from django.conf import settings as django_settings
from fastapi.testclient import TestClient
from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor

VARIES = ("code.", "thread.", "net.peer.port", "server.port", "http.url", "url.full", "http.host", "celery.hostname",
          "celery.delivery_info", "celery.reply_to", "celery.correlation_id", "messaging.message", "messaging_message",
          "celery.timelimit", "messaging.conversation_id", "enduser", "user_agent", "http.user_agent", "net.host")
os.environ["OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE"] = "look_up"

shop = celery.Celery("shop", broker="memory://", backend="cache+memory://")

@shop.task(name="shop.mail")
def mail(run_id):
    with step(run_id, "celery"):
        return "mailed"

web = fastapi.FastAPI()
small = flask.Flask("small")
django_settings.configure(ROOT_URLCONF="__main__", ALLOWED_HOSTS=["*"], SECRET_KEY="made-up", DEBUG=False,
                          MIDDLEWARE=[], LOGGING_CONFIG=None)
DjangoInstrumentor().instrument()
django.setup()
FastAPIInstrumentor.instrument_app(web)
FlaskInstrumentor().instrument_app(small)
for instrumentor in (AsyncioInstrumentor, CeleryInstrumentor, HTTPXClientInstrumentor, RequestsInstrumentor,
                     ThreadingInstrumentor, URLLib3Instrumentor):
    instrumentor().instrument()
engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.StaticPool, connect_args={"check_same_thread": False})
# It does not know SQLAlchemy 2.1 by its version number, and works with it.
SQLAlchemyInstrumentor().instrument(engine=engine, skip_dep_check=True)

failpath, within = None, []
if os.environ["OURS"] == "1":
    from failpath_otel import FailpathClient
    def mask(event):
        within.append(trace.get_current_span().get_span_context().is_valid)
        return event
    failpath = FailpathClient(flows=False, mask=mask)

def step(run_id, key):
    return nullcontext() if failpath is None else failpath.run("checkout", run_id).step(key)

class Other(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
other = ThreadingHTTPServer(("127.0.0.1", 0), Other)
threading.Thread(target=other.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{other.server_port}/"

async def look_up(run_id):
    with step(run_id, "asyncio"):
        await asyncio.sleep(0)

@web.get("/pay/{run_id}")
async def pay(run_id: str):
    with step(run_id, "fastapi"):
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("select 1"))
        async with httpx.AsyncClient() as client:
            await client.get(url)
        await asyncio.gather(look_up(run_id), asyncio.create_task(look_up(run_id)))
        return "paid"

@web.get("/fails/{run_id}")
def fails(run_id: str):
    with step(run_id, "fails"):
        raise fastapi.HTTPException(409, "taken")

@small.get("/pay/<run_id>")
def pay_small(run_id):
    def threaded():
        with step(run_id, "thread"):
            requests.get(url)
    with step(run_id, "flask"):
        thread = threading.Thread(target=threaded)
        thread.start()
        thread.join()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(threaded).result()
        return "paid"

def pay_django(request, run_id):
    from django.http import HttpResponse
    with step(run_id, "django"):
        urllib3.request("GET", url)
        return HttpResponse("paid")
from django.urls import path
urlpatterns = [path("pay/<run_id>", pay_django, name="pay")]

client = TestClient(web)
assert client.get("/pay/fastapi").json() == "paid"
assert client.get("/fails/fastapi").status_code == 409
assert small.test_client().get("/pay/flask").text == "paid"
from django.test import Client
assert Client().get("/pay/django").content == b"paid"
with start_worker(shop, pool="solo", perform_ping_check=False, loglevel="ERROR"):
    assert mail.delay("celery").get(timeout=20) == "mailed"
other.shutdown()
other.server_close()
if failpath is not None:
    assert failpath.flush(5000), failpath.stats()
    assert within and not any(within), within
print(json.dumps(list(seen())))
"""
