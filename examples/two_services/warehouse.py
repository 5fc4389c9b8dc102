"""The service behind: knows nothing of runs. Its steps belong to the run of whoever calls it."""

from fastapi import FastAPI, Response

from failpath_otel import FailpathClient

failpath = FailpathClient()
app = FastAPI()


class OutOfStock(Exception):
    pass


@failpath.step("reserve-stock")
def reserve(count: int) -> None:
    if count > 10:
        raise OutOfStock(f"{count} wanted, 10 there")


@failpath.step("pick-parcel")
def pick(count: int) -> None:
    pass


@app.post("/reserve")
async def reserved(order: dict[str, int], response: Response):
    try:
        reserve(order["count"])
    except OutOfStock as error:
        response.status_code = 409
        return {"reason": str(error)}
    pick(order["count"])
    return {}
