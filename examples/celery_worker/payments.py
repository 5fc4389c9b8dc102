"""The payments service behind the shop: its step is of the run that the request came from."""

from fastapi import FastAPI

from failpath_otel import FailpathClient

failpath = FailpathClient()
app = FastAPI()


@app.post("/charges")
def charge(order: dict[str, str]) -> dict[str, str]:
    with failpath.current_run().step("charge-card"):
        return {"charge": f"ch_{order['card']}"}
