"""A checkout service that exports its traces: before."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from pydantic import BaseModel

PRICES = {"espresso-cup": 14, "moka-pot": 39}

provider = TracerProvider(resource=Resource.create({"service.name": "orders"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
HTTPXClientInstrumentor().instrument()
payments = httpx.AsyncClient(base_url=os.environ.get("PAYMENTS_URL", "http://127.0.0.1:9000"))


class Order(BaseModel):
    id: str
    items: dict[str, int]
    card: str
    wants_receipt: bool = True


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield
    await payments.aclose()
    provider.shutdown()


app = FastAPI(lifespan=lifespan)
FastAPIInstrumentor.instrument_app(app)


@app.post("/checkout", status_code=201)
async def checkout(order: Order) -> dict[str, str]:
    total = price(order)
    await charge(order, total)
    await reserve(order)
    number = save(order)
    if order.wants_receipt:
        await send_receipt(order)
    return {"order": number}


def price(order: Order) -> int:
    return sum(PRICES[item] * count for item, count in order.items.items())


async def charge(order: Order, total: int) -> None:
    answer = await payments.post("/charges", json={"card": order.card, "amount": total})
    if answer.status_code == 402:
        raise HTTPException(402, "card declined")
    answer.raise_for_status()


async def reserve(order: Order) -> None:
    with trace.get_tracer("orders").start_as_current_span("warehouse lookup") as span:
        span.set_attribute("items", sum(order.items.values()))


def save(order: Order) -> str:
    return f"order-{order.id}"


async def send_receipt(order: Order) -> None:
    with trace.get_tracer("orders").start_as_current_span("render receipt") as span:
        span.set_attribute("order", order.id)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
