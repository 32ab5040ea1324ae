"""A web server on this machine whose connections break, whose files are missing, and which counts what it sends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FileServer:
    """Serves `files` by name. Each request takes the first of `plan`, if there is one: a status to answer with, or
    ("cut", n): the connection ends after n bytes of the answer.
    """

    files: dict[str, bytes]
    ranges: bool = True  # whether the header Range is honoured
    length: bool | str = True  # whether Content-Length is sent, or what it says
    endless: bool = False  # the last kilobyte comes again and again, until the other side hangs up
    reason: str | None = None  # words after the status, where it is an error
    plan: list[int | tuple[str, int]] = field(default_factory=list)
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # name and Range
    sent: int = 0
    url: str = ""


@contextmanager
def serving(server: FileServer) -> Iterator[FileServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, wanted = self.path.rsplit("/", 1)[1], self.headers.get("Range")
            server.requests.append((name, wanted))
            step = server.plan.pop(0) if server.plan else ("cut", 10**9)
            if isinstance(step, int) or name not in server.files:
                self.send_error(step if isinstance(step, int) else 404, server.reason)
                return
            body = server.files[name]
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
            if start and start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if server.length:
                self.send_header("Content-Length", str(len(body) - start) if server.length is True else server.length)
            self.end_headers()
            answer = body[start:][: step[1]]
            server.sent += len(answer)
            self.wfile.write(answer)
            while server.endless:
                self.wfile.write(body[-1000:])
                server.sent += len(body[-1000:])

        def log_message(self, *args: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: Any) -> None:  # a client that goes away is part of the tests
            pass

    with Quiet(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.url = f"http://127.0.0.1:{http.server_port}/voc"
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
