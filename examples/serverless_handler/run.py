"""A function that sends what it has before it returns: ``python run.py``. ``--keep`` stays, for a look at the page."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import Stage, call, free_port, keeps

DONE = {"read-photo": "success", "make-thumbnail": "success", "tell-owner": "success"}
EXPECTED = {
    "photo_1": DONE,
    "photo_2": DONE,
    "photo_3": DONE,
    "photo_4": {"read-photo": "error", "make-thumbnail": "missing", "tell-owner": "missing"},
}
FLUSH_WAITS = 2


@dataclass
class Function:
    """The function's process. Between two invocations it is frozen, as Lambda does it; nothing runs in it then."""

    stage: Stage
    process: subprocess.Popen[bytes]
    url: str

    def invoke(self, photo: str, width: int, *, deadline_millis: int) -> bool:
        """Calls the handler; whether it came back within its deadline."""
        self.process.send_signal(signal.SIGCONT)
        event = {"id": photo, "width": width, "owner": "ann"}
        _, body = call("POST", self.url, event, {"deadline-millis": str(deadline_millis)})
        self.process.send_signal(signal.SIGSTOP)
        said = json.loads(body)
        taken = deadline_millis - said["left"]
        print(f"{photo}  after {taken} ms of {deadline_millis} ms  {json.dumps(said['answer'])}", flush=True)
        return said["left"] > 0

    def waits(self) -> int:
        """How often an invocation left something for the next one."""
        return self.stage.log("function").read_text().count("wait for the next invocation")


@contextlib.contextmanager
def frozen_function(stage: Stage, endpoint: str) -> Iterator[Function]:
    port = free_port()
    command = [sys.executable, "runtime.py", str(port)]
    process = stage.process("function", command, port=port, FAILPATH_DEV_ENDPOINT=endpoint)
    try:
        yield Function(stage, process, f"http://127.0.0.1:{port}/")
    finally:
        process.send_signal(signal.SIGCONT)  # or it would not take note of its end


def main() -> int:
    keep = keeps()
    in_time = []
    with Stage(HERE) as stage:
        port = free_port()
        with frozen_function(stage, f"http://127.0.0.1:{port}") as function:
            with socket.create_server(("127.0.0.1", port)):
                print("The endpoint takes connections and never answers:", flush=True)
                in_time.append(function.invoke("photo_1", 1200, deadline_millis=10_000))
                in_time.append(function.invoke("photo_2", 1200, deadline_millis=600))
                waited = function.waits()
            print(f"server   {stage.serve('--flows', os.fspath(HERE / '.failpath' / 'flows.json'), port=port)}", flush=True)
            in_time.append(function.invoke("photo_3", 120, deadline_millis=10_000))
            in_time.append(function.invoke("photo_4", 0, deadline_millis=10_000))
            print("\nWhat the server knows, with the function frozen since:", flush=True)
            good = stage.until("photo-upload", EXPECTED) and all(in_time) and waited == function.waits() == FLUSH_WAITS
            return stage.end(good=good, keep=keep, said=f"In time: {in_time}. ")


if __name__ == "__main__":
    sys.exit(main())
