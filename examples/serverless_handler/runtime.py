"""Stands for the provider's runtime: takes events by HTTP, one at a time, and calls the handler with a deadline."""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

from handler import handler


class Context:
    """As much of Lambda's context as the handler uses."""

    def __init__(self, deadline_millis: int) -> None:
        self._ends = time.monotonic() + deadline_millis / 1000

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._ends - time.monotonic()) * 1000))


class Invocation(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["content-length"])))
        context = Context(int(self.headers["deadline-millis"]))
        try:
            answer = handler(event, context)
        except Exception as error:
            answer = {"errorType": type(error).__name__, "errorMessage": str(error)}
        body = json.dumps({"answer": answer, "left": context.get_remaining_time_in_millis()}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        pass


HTTPServer(("127.0.0.1", int(sys.argv[1])), Invocation).serve_forever()
