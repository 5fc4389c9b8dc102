"""A function as AWS Lambda calls it. What it reported is sent before it returns, for then the process is frozen."""

from failpath_otel import FailpathClient

FLUSH_MILLIS = 1500  # what a hung endpoint may cost an invocation that has time left
MARGIN_MILLIS = 100  # what the way back to the runtime takes

failpath = FailpathClient()  # once for a process, so that what could not be sent goes with the next invocation


class BrokenPhoto(Exception):
    pass


@failpath.step("read-photo")
def read(photo: dict) -> int:
    if photo["width"] <= 0:
        raise BrokenPhoto(f"{photo['width']} pixels wide")
    return photo["width"]


@failpath.step("make-thumbnail")
def shrink(width: int) -> int:
    return min(width, 256)


@failpath.step("tell-owner")
def tell(owner: str) -> None:
    pass


def handler(event, context):
    try:
        with failpath.run("photo-upload", run_id=event["id"]):
            width = shrink(read(event))
            tell(event["owner"])
            return {"width": width}
    finally:
        left = context.get_remaining_time_in_millis() - MARGIN_MILLIS
        flushed = failpath.flush(max(0, min(left, FLUSH_MILLIS)))
        if not flushed:
            print(f"{flushed.pending} events wait for the next invocation", flush=True)
