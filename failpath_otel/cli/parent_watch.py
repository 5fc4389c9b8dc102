"""A child that does not outlive its parent: it ends when the pipe from the parent closes, however the parent came to its end.

``python -m failpath_otel.cli.parent_watch serve …`` is ``failpath-otel serve …`` on such a pipe.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Final

from failpath_otel.cli import main

_STDIN: Final = 0
_GRACE_SECONDS: Final = 4.0


def watch_parent() -> None:
    """From now on the end of standard input ends this process: by SIGTERM, and by force where that takes too long."""
    threading.Thread(target=_watch, name="failpath-parent-watch", daemon=True).start()


def _watch() -> None:
    # os.read and not sys.stdin: a thread within a buffered reader would break the interpreter's exit.
    while os.read(_STDIN, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    watch_parent()
    main()
