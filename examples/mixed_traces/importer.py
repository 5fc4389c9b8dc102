"""A nightly import that has had traces for long. Steps are put among its spans."""

import sqlite3
import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from failpath_otel import FailpathClient

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("importer")
failpath = FailpathClient()
database = sqlite3.connect(":memory:")


def import_file(run_id: str, rows: list[int]) -> None:
    """Within spans that were there before, steps; within steps, spans that were there before."""
    with tracer.start_as_current_span("import file"), failpath.run("nightly-import", run_id=run_id) as run:
        run.step("download", download)
        with tracer.start_as_current_span("prepare"):
            run.step("check-rows", lambda: check(rows))
        run.step("write-rows", lambda: write(rows))


def publish(run_id: str) -> None:
    """Comes later, in a trace of its own, and is the same run."""
    with tracer.start_as_current_span("publish job"):
        failpath.run("nightly-import", run_id=run_id).step("publish", lambda: None)


def download() -> None:
    with tracer.start_as_current_span("GET files.example.org"):
        pass


def check(rows: list[int]) -> None:
    if min(rows) < 0:
        raise ValueError(f"row of {min(rows)}")


def write(rows: list[int]) -> None:
    with tracer.start_as_current_span("INSERT imported"), database:
        database.execute("create table if not exists imported (value integer)")
        database.executemany("insert into imported values (?)", [(row,) for row in rows])


if __name__ == "__main__":
    import_file("monday", [3, 5])
    publish("monday")
    try:
        import_file("tuesday", [3, -5])
    except ValueError as error:
        print(error, file=sys.stderr)
    failpath.shutdown()
    provider.shutdown()
