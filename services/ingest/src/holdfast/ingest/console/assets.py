"""The console's own files: style, script and icon, and the browser client for live updates.

Their address has a digest of all of them, so a browser may keep them for good: a new release has another address. One digest
for all lets the scripts import each other by relative names.
"""

import hashlib
from importlib.resources import files

from flask import Blueprint, Response

from holdfast.ingest.http.problems import Problem

__all__ = ["ASSETS", "FOR_GOOD", "Assets", "blueprint"]

blueprint = Blueprint("console_assets", __name__)

_MEDIA_TYPES = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "holdfast-live.js": "text/javascript; charset=utf-8",
    "follow.js": "text/javascript; charset=utf-8",
    "event-stream.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

FOR_GOOD = "public, max-age=31536000, immutable"

_HEADERS = {
    # An SVG opened by itself is a document: it gets to do nothing.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Assets:
    """The files, read once."""

    def __init__(self) -> None:
        folder = files(__package__) / "static"
        self._content = {name: (folder / name).read_bytes() for name in _MEDIA_TYPES}
        digest = hashlib.sha256()
        for name, content in sorted(self._content.items()):
            digest.update(f"{name} {len(content)} ".encode() + content)
        self.digest = digest.hexdigest()[:16]

    def address(self, name: str) -> str:
        """Where a file is."""
        return f"/console/assets/{self.digest}/{name}"

    def answer(self, digest: str, name: str) -> Response:
        """The file. Under the digest of another release it is served too, and not kept: while releases change, a page of the
        one may ask a process of the other.

        Raises:
            Problem: 404.
        """
        if name not in self._content:
            raise Problem(404, "not_found", "the console has no such file")
        cache = FOR_GOOD if digest == self.digest else "no-store"
        headers = {**_HEADERS, "Cache-Control": cache}
        return Response(self._content[name], 200, headers, content_type=_MEDIA_TYPES[name])


ASSETS = Assets()


@blueprint.get("/console/assets/<digest>/<name>")
def asset(digest: str, name: str) -> Response:
    """One file."""
    return ASSETS.answer(digest, name)
