"""The payment provider, which is somebody else's."""

from fastapi import FastAPI, Response

app = FastAPI()


@app.post("/charges")
def charge(wanted: dict[str, str | int], response: Response) -> dict[str, bool]:
    response.status_code = 402 if wanted["card"] == "declined" else 200
    return {"charged": response.status_code == 200}
