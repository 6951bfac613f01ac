"""Another company's system: an HTTP server in the test's own process."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

__all__ = ["OutsideService"]


class OutsideService:
    """Does its work for every attempt but the first, and remembers who asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        service = self

        class Requests(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.asked.append(asked)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(asked["what"] == "do" and asked["attempt"] > 1).encode())

            def log_message(self, *_: object) -> None:
                """Nothing: it is asked many times."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def was_asked(self, what: str, *, attempt: int) -> bool:
        """By any process."""
        return any((asked["what"], asked["attempt"]) == (what, attempt) for asked in self.asked)
