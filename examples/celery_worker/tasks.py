"""The tasks, for the shop that sends them and the worker that runs them."""

import os

from celery import Celery
from reporting import failpath

app = Celery("shop", broker=os.environ["BROKER_URL"])
# A courier that is busy is asked again.
RETRY_SECONDS = 0.2


class CourierBusy(Exception):
    pass


@app.task(bind=True, max_retries=1)
def send_parcel(self, address: str) -> None:
    """Packs the parcel and hands it to the courier, who is busy at first where the address says so."""
    run = failpath.current_run()
    if not self.request.retries:
        run.step("pack-parcel", lambda: None)
    try:
        run.step("call-courier", lambda: call_courier(address, self.request.retries))
    except CourierBusy as busy:
        raise self.retry(exc=busy, countdown=RETRY_SECONDS) from busy


def call_courier(address: str, retries: int) -> None:
    if "Nowhere" in address or ("Hill" in address and not retries):
        raise CourierBusy("no courier is free")
