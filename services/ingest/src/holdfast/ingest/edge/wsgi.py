"""From a whole request to WSGI's words (PEP 3333), which Flask knows, and from its answer to bytes."""

import io
import sys
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from holdfast.ingest.edge.reading import Request

__all__ = ["Answer", "encode", "environ_of", "path_of"]

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers, body."""

_FIXED: Mapping[str, Any] = {
    "SCRIPT_NAME": "",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.input_terminated": True,
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
}

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}

_MAX_CACHED_NAME_BYTES = 64


def environ_of(request: Request, connection: Mapping[str, Any]) -> dict[str, Any]:
    """What the application gets. Header names with an underscore are left out: they would pass for others."""
    environ = {
        **_FIXED,
        **connection,
        "REQUEST_METHOD": request.verb.decode(),
        "PATH_INFO": unquote_to_bytes(path_of(request.path)).decode("latin-1"),
        "QUERY_STRING": request.query.decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{request.version}",
        "wsgi.input": io.BytesIO(request.body),
    }
    for name, value in request.headers:
        key = _key(name) if len(name) <= _MAX_CACHED_NAME_BYTES else _key.__wrapped__(name)
        if key in environ and key != "CONTENT_LENGTH":
            environ[key] = f"{environ[key]}, {value.decode('latin-1')}"
        elif key:
            environ[key] = value.decode("latin-1")
    environ.setdefault("CONTENT_LENGTH", str(len(request.body)))
    return environ


def path_of(target: bytes) -> bytes:
    """The path of a request target, which may be a whole address (RFC 9112 section 3.2.2)."""
    if target.startswith(b"/"):
        return target
    _, is_address, rest = target.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if is_address else target


def encode(answer: Answer, *, keep_alive: bool) -> bytes:
    """The answer as HTTP/1.1 has it. The application gives ``content-length`` wherever there may be a body."""
    status, headers, body = answer
    lines = [_STATUS_LINES[status], b"date: ", _date(int(time.time())), b"\r\n"]
    for name, value in headers:
        lines += (name, b": ", value, b"\r\n")
    lines += (b"\r\n" if keep_alive else b"connection: close\r\n\r\n", body)
    return b"".join(lines)


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


@lru_cache(maxsize=256)
def _key(name: bytes) -> str:
    """The name that a header has in an environment; empty where it must have none."""
    if b"_" in name or name == b"transfer-encoding":
        return ""
    key = name.decode("latin-1").upper().replace("-", "_")
    return key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"
