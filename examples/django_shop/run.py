"""A Django shop under gunicorn: ``python run.py``. ``--keep`` stays, for a look at the page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import Stage, call, free_port, instruments, keeps, staged, tool, trace_ids

STEPS = ("validate-cart", "reserve-stock", "charge-card", "create-order", "send-receipt-email")
ARTICLES = [{"model": "shop.article", "pk": 1, "fields": {"name": "moka-pot", "price": 39, "in_stock": 10}}]
CARTS = {
    "req_1": {"article": "moka-pot", "count": 2, "card": "tok_visa", "email": "ann@example.org"},
    "req_2": {"article": "moka-pot", "count": 3, "card": "tok_declined", "email": "bob@example.org"},
    "req_3": {"article": "moka-pot", "count": 20, "card": "tok_visa", "email": "cid@example.org"},
}
EXPECTED = {
    "req_1": dict.fromkeys(STEPS, "success"),
    "req_2": dict(zip(STEPS, ("success", "success", "error", "missing", "missing"), strict=True)),
    "req_3": dict(zip(STEPS, ("success", "error", "missing", "missing", "missing"), strict=True)),
}


def shop(stage: Stage) -> str:
    """Fills a database and serves the shop with two workers; gives its address."""
    database = str(stage.folder / "shop.sqlite3")
    articles = stage.folder / "articles.json"
    articles.write_text(json.dumps(ARTICLES))
    for command in (["migrate", "--run-syncdb"], ["loaddata", str(articles)]):
        done = stage.process("manage", [sys.executable, "manage.py", *command], DATABASE=database)
        if done.wait(timeout=60):
            raise subprocess.CalledProcessError(done.returncode, command, stage.log("manage").read_text())
    port = free_port()
    command = [tool("opentelemetry-instrument"), tool("gunicorn"), "shop.wsgi", "--workers", "2", "--bind", f"127.0.0.1:{port}"]
    env = {"DATABASE": database, "DJANGO_SETTINGS_MODULE": "shop.settings", "OTEL_TRACES_EXPORTER": "none"}
    stage.process("shop", command, port=port, **env, **instruments("django"))
    return f"http://127.0.0.1:{port}"


def main() -> int:
    keep = keeps()
    with staged(HERE, "--flows", str(HERE / ".failpath" / "flows.json")) as stage:
        address = shop(stage)
        for run_id, cart in CARTS.items():
            status, body = call("POST", f"{address}/checkout", cart, {"x-request-id": run_id})
            print(f"POST /checkout  {run_id}  {status} {body.decode()}", flush=True)
        _, stock = call("GET", f"{address}/stock")
        print(f"GET /stock  {stock.decode()}", flush=True)
        good = stage.until("checkout", EXPECTED) and json.loads(stock) == {"moka-pot": 8}
        traces = [len(trace_ids(stage.run("checkout", run_id))) for run_id in EXPECTED]
        good = good and traces == [1, 1, 1]
        return stage.end(good=good, keep=keep, said=f"Traces of each run: {traces}. ")


if __name__ == "__main__":
    sys.exit(main())
