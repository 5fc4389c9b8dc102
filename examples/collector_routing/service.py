"""A service that knows one address, the Collector's: it sends its traces there, and its steps as log records.

Nothing here says where runs are looked at. What does is the Collector's configuration.
"""

import itertools
import random
import sys
import time

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from failpath_otel import FailpathClient

# As it was: the service exports its traces by the environment's OTEL_EXPORTER_OTLP_ENDPOINT.
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=500))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("shop")

# New: by FAILPATH_EXPORTER=otlp steps go the same way, to the same endpoint, as they start and as they end.
failpath = FailpathClient()


class CardDeclined(Exception):
    pass


def charge(order: int) -> str:
    with tracer.start_as_current_span("POST api.payments.example", kind=trace.SpanKind.CLIENT):
        time.sleep(random.uniform(0.5, 1.0))
    if order % 3 == 2:
        raise CardDeclined("insufficient funds")
    return f"ch_{order}"


def checkout(order: int) -> None:
    with tracer.start_as_current_span("POST /checkout", kind=trace.SpanKind.SERVER):
        run = failpath.run("checkout", run_id=f"order-{order}", metadata={"items": order % 4 + 1})
        run.step("validate-cart", lambda: time.sleep(0.05))
        try:
            run.step("charge-card", lambda: charge(order))
        except CardDeclined:
            return
        run.step("create-order", lambda: time.sleep(0.1))
        if order % 2:
            run.step("send-receipt", lambda: time.sleep(0.3))
        else:
            run.skip("send-receipt", reason="the customer wants none")


def main() -> None:
    orders = range(1, int(sys.argv[1]) + 1) if len(sys.argv) > 1 else itertools.count(1)
    try:
        for order in orders:
            checkout(order)
            time.sleep(0.5)
    except KeyboardInterrupt:
        pass
    finally:
        failpath.shutdown()
        provider.shutdown()


if __name__ == "__main__":
    main()
