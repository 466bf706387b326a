"""A loopback API for the fixtures of the capability file."""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
LOOKS = 3
"""Number of polls after which a job has ended."""


@contextmanager
def running() -> Iterator[str]:
    """Serve the API and yield its origin."""
    looked: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, _, name = self.path.lstrip("/").partition("/")
            if kind == "picture":
                self._answer(200, PICTURE, "image/png")
            elif kind == "text":
                self._json(200, {"text": "This is a simple text response for testing."})
            elif kind.startswith("echo"):
                self._json(200, {"text": kind.partition("=")[2]})
            elif kind == "jobs":
                looked[name] += 1
                self._json(200, {"id": name, "state": "running" if looked[name] < LOOKS else "ended"})
            elif kind == "things":
                self._json(200, {"id": name, "data": f"Data for ID: {name}"})
            else:
                self._json(422, {"error": {"code": "Refused", "message": "This tool intentionally returns an error."}})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self._json(201, {"id": f"job-{len(looked)}"})

        def _json(self, status: int, body: Any) -> None:
            self._answer(status, json.dumps(body).encode(), "application/json")

        def _answer(self, status: int, content: bytes, media_type: str) -> None:
            self.send_response(status)
            self.send_header("content-type", media_type)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Log nothing, because standard error is for failures."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
