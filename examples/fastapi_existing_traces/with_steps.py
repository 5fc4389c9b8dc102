"""The same service with steps of its own: one line each."""

import os

import httpx
from fastapi import FastAPI, HTTPException
from sqlalchemy import create_engine, text

from failpath_otel import FailpathClient
from failpath_otel.integrations.asgi import FailpathMiddleware

database = create_engine("sqlite:///" + os.environ["ORDERS_DB"])
with database.begin() as connection:
    connection.execute(text("create table if not exists orders (id text primary key, total integer)"))
payments = httpx.Client(base_url=os.environ["PAYMENTS_URL"], trust_env=False)
app = FastAPI()
failpath = FailpathClient(rules=False)
app.add_middleware(FailpathMiddleware, client=failpath, flow={"POST /checkout": "checkout"}, run_id="x-request-id")


@app.post("/checkout", status_code=201)
def checkout(order: dict[str, str]) -> dict[str, str]:
    total = len(order["item"])
    charge(order["card"], total)
    save(order["id"], total)
    return {"order": order["id"]}


@failpath.step("charge-card")
def charge(card: str, total: int) -> None:
    answer = payments.post("/charges", json={"card": card, "total": total})
    if answer.is_error:
        raise HTTPException(402, "card declined")


@failpath.step("create-order")
def save(number: str, total: int) -> None:
    with database.begin() as connection:
        connection.execute(text("insert into orders values (:id, :total)"), {"id": number, "total": total})
