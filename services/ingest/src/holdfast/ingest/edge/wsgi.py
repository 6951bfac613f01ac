"""From ASGI's words to WSGI's (PEP 3333) and back, for requests that are whole."""

import io
import sys
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

__all__ = ["Answer", "environ_of", "run", "path_of"]

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers, body."""


def environ_of(scope: Any, headers: list[tuple[bytes, bytes]], body: bytearray) -> dict[str, Any]:
    """What the application gets. Header names with an underscore are left out: they would pass for others."""
    server, client = scope["server"] or ("", 0), scope["client"] or ("", 0)
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path_of(scope["raw_path"])).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": str(server[0]),
        "SERVER_PORT": str(server[1]),
        "REMOTE_ADDR": str(client[0]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in headers:
        if b"_" not in name and name != b"transfer-encoding":
            _add(environ, name.decode("latin-1").upper().replace("-", "_"), value.decode("latin-1"))
    environ.setdefault("CONTENT_LENGTH", str(len(body)))
    return environ


def path_of(target: bytes) -> bytes:
    """The path of a request target, which may be a whole address (RFC 9112 section 3.2.2)."""
    if target.startswith(b"/"):
        return target
    _, is_address, rest = target.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if is_address else target


def run(app: Callable[..., Iterable[bytes]], environ: dict[str, Any]) -> Answer:
    """Call the application and collect its answer."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        del exc_info
        started.append((status, headers))
        return lambda _: None

    chunks = app(environ, start_response)
    try:
        body = b"".join(chunks)
    finally:
        if close := getattr(chunks, "close", None):
            close()
    status, headers = started[-1]
    return (
        int(status.split(" ", 1)[0]),
        [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        body,
    )


def _add(environ: dict[str, Any], name: str, value: str) -> None:
    key = name if name in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{name}"
    environ[key] = f"{environ[key]}, {value}" if key in environ and key != "CONTENT_LENGTH" else value
