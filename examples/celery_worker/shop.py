"""The web service: takes an order, charges it in the payments service, and leaves the parcel to a worker."""

import os

import httpx
from fastapi import FastAPI
from reporting import failpath
from tasks import send_parcel

from failpath_otel.integrations.asgi import FailpathMiddleware

app = FastAPI()
app.add_middleware(FailpathMiddleware, client=failpath, flow={"POST /checkout": "checkout"}, run_id="x-request-id")
payments = httpx.Client(base_url=os.environ["PAYMENTS_URL"], trust_env=False)


@app.post("/checkout", status_code=202)
def checkout(order: dict[str, str]) -> dict[str, str]:
    validate(order)
    payments.post("/charges", json=order).raise_for_status()
    send_parcel.delay(order["address"])
    return {"parcel": "on its way"}


@failpath.step("validate-order")
def validate(order: dict[str, str]) -> None:
    if not order.get("address"):
        raise ValueError("an address is needed")
