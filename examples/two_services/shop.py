"""The service in front: begins the run of a checkout, and calls the warehouse."""

import os

import httpx
from fastapi import FastAPI, Response

from failpath_otel import FailpathClient
from failpath_otel.integrations.asgi import FailpathMiddleware

failpath = FailpathClient()
app = FastAPI()
app.add_middleware(FailpathMiddleware, client=failpath, flow={"POST /checkout": "checkout"})


@failpath.step("validate-cart")
def validate(cart: dict[str, int]) -> int:
    return sum(cart.values())


@failpath.step("charge-card")
def charge(count: int) -> None:
    pass


@app.post("/checkout")
async def checkout(cart: dict[str, int], response: Response):
    count = validate(cart)
    async with httpx.AsyncClient(base_url=os.environ["WAREHOUSE"]) as warehouse:
        answer = await warehouse.post("/reserve", json={"count": count})
    if answer.status_code != 200:
        response.status_code = 409
        return {"reason": answer.json()["reason"]}
    charge(count)
    return {"bought": count}
