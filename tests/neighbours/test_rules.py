"""The recipes of docs/span-rules.md beside the real instrumentations: zero changed lines, with and without sampling."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.markdown import blocks
from support.served import environment

for package in ("fastapi", "httpx", "sqlalchemy", "celery", "opentelemetry.distro", "opentelemetry.instrumentation.celery"):
    pytest.importorskip(package)

RECIPES = Path(__file__).parents[2] / "docs" / "span-rules.md"
SECONDS = 60

SERVICE = """
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
import celery, httpx, sqlalchemy
from fastapi import FastAPI
from fastapi.testclient import TestClient
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

class Payments(BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(503 if "broken" in self.path else 409)
        self.end_headers()
    def log_message(self, *_):
        pass

payments = HTTPServer(("127.0.0.1", 0), Payments)
threading.Thread(target=payments.serve_forever, daemon=True).start()
engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.pool.StaticPool, connect_args={"check_same_thread": False})
# The instrumentation declares SQLAlchemy below 2.1, so that it passes over newer ones unless it is told not to look.
SQLAlchemyInstrumentor().instrument(engine=engine, skip_dep_check=True)
with engine.begin() as connection:
    connection.execute(sqlalchemy.text("CREATE TABLE orders (id INTEGER)"))
worker = celery.Celery("shop", broker="memory://", task_cls=celery.Task)

@worker.task(name="shop.send_receipt")
def send_receipt():
    return 1

app = FastAPI()

@app.post("/checkout")
def checkout(way: str):
    httpx.post(f"http://127.0.0.1:{payments.server_port}/{way}", trust_env=False)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("INSERT INTO orders VALUES (1)"))
    send_receipt.apply()
    if way == "broken":
        raise ValueError("no")
    return {}

client = TestClient(app, raise_server_exceptions=False)
for way in ("pay", "broken"):
    client.post("/checkout", params={"way": way})
payments.shutdown()
payments.server_close()
"""


def recipes() -> dict[str, Any]:
    """The rules of all recipes in one file; the URL of the payment service is the one thing that differs here."""
    files = [json.loads(block.body) for block in blocks(RECIPES) if block.language == "json"]
    rules = [rule for file in files[1:] for rule in file["rules"]]
    text = json.dumps({"version": 1, "rules": rules})
    return json.loads(text.replace("https://payments.example/*", "http://127.0.0.1:*"))  # type: ignore[no-any-return]


@pytest.mark.parametrize("sampled", [True, False], ids=["sampled", "recorded only"])
def test_the_recipes_make_one_run_of_a_request_with_zero_changed_lines(sampled: bool, tmp_path: Path) -> None:
    (tmp_path / ".failpath").mkdir()
    (tmp_path / ".failpath" / "spans.json").write_text(json.dumps(recipes()), encoding="utf-8")
    (tmp_path / "shop.py").write_text(SERVICE, encoding="utf-8")
    quiet = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    unsampled = {} if sampled else {"OTEL_TRACES_SAMPLER": "always_off", "FAILPATH_RECORD_UNSAMPLED": "true"}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "opentelemetry-instrument"), sys.executable, "shop.py"],
        cwd=tmp_path,
        env=environment({**quiet, **unsampled, "FAILPATH_EXPORTER": "jsonl:events.jsonl"}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    runs: dict[str, dict[str, list[str]]] = {}
    for event in events:
        runs.setdefault(event["runId"], {}).setdefault(event["stepKey"], []).append(event["status"])
    good, bad = runs.values()
    assert good == {
        "place-order": ["running", "success"],
        "charge-card": ["running", "success"],
        "create-order": ["success"],
        "send-receipt-email": ["running", "success"],
    }
    assert bad == {**good, "place-order": ["running", "error"], "charge-card": ["running", "error"]}
    errors = {event["stepKey"]: event["error"] for event in events if event["status"] == "error"}
    assert errors["charge-card"]["message"] == "the payment service answered 503"
    assert errors["place-order"]["name"] == "ValueError"
