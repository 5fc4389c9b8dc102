"""Automatic traces, first with rules alone, then with steps: ``python run.py``. ``--keep`` stays, for a look at the page."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import Stage, call, free_port, get, instruments, keeps, staged, tool, within

CARDS = {"req_1": "visa", "req_2": "declined"}
# By the card, for run ids are trace ids where only rules speak.
BY_RULES = {
    "visa": {"charge-card": "success", "create-order": "success"},
    "declined": {"charge-card": "error", "create-order": "missing"},
}
BY_STEPS = {
    "req_1": {"charge-card": "success", "create-order": "success"},
    "req_2": {"charge-card": "error", "create-order": "missing"},
}


def service(stage: Stage, name: str, *before: str, **env: str) -> str:
    port = free_port()
    stage.process(name, [*before, tool("uvicorn"), f"{name}:app", "--port", str(port)], port=port, **env)
    return f"http://127.0.0.1:{port}"


def order(stage: Stage, name: str, payments: str) -> None:
    """Starts one version of the service and sends it both orders."""
    shop = service(
        stage,
        name,
        tool("opentelemetry-instrument"),
        OTEL_TRACES_EXPORTER="none",
        **instruments("fastapi", "httpx", "sqlalchemy"),
        PAYMENTS_URL=payments,
        ORDERS_DB=str(stage.folder / f"{name}.db"),
    )
    for run_id, card in CARDS.items():
        body = {"id": run_id, "item": "moka-pot", "card": card}
        status, answer = call("POST", f"{shop}/checkout", body, {"x-request-id": run_id})
        print(f"{name}.py  POST /checkout  {status} {answer.decode()}", flush=True)


def main() -> int:
    keep = keeps()
    with staged(HERE, "--flows", str(HERE / ".failpath" / "flows.json")) as stage:
        payments = service(stage, "payments")
        order(stage, "service", payments)
        within(lambda: len(get(stage.server, "/api/runs")["runs"]) == len(CARDS))
        runs = sorted(get(stage.server, "/api/runs")["runs"], key=lambda run: run["startedAt"])
        run_ids = [run["runId"] for run in runs]
        good = stage.until("checkout", dict(zip(run_ids, BY_RULES.values(), strict=True)))
        print(flush=True)
        order(stage, "with_steps", payments)
        good = stage.until("checkout", BY_STEPS) and good
        return stage.end(good=good, keep=keep)


if __name__ == "__main__":
    sys.exit(main())
