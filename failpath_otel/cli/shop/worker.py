"""``python -m failpath_otel.cli.shop.worker <run id>``: an order by phone, worked on in the background, that never ends.

The demo kills this process while it reserves stock, as a machine may die at any time.
"""

from __future__ import annotations

import sys
import threading

from failpath_otel import FailpathClient
from failpath_otel.cli.parent_watch import watch_parent
from failpath_otel.cli.shop.telemetry import export_traces


def main(run_id: str) -> None:
    """Takes two steps and stays within the third."""
    watch_parent()
    export_traces("shop-worker")
    failpath = FailpathClient()
    run = failpath.run("checkout", run_id=run_id, metadata={"channel": "phone"})
    total = run.step("validate-cart", lambda: 3900)
    run.step("charge-card", lambda: f"ch_{run_id}", metadata={"amount_cents": total})
    with run.step("reserve-stock", metadata={"warehouse": "south"}):
        # What was reported so far has arrived before the line is written that lets the demo strike.
        failpath.flush()
        print("the worker is reserving stock", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
