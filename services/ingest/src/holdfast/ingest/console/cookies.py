"""Cookies of the console: all under its path, and none for scripts or other sites."""

from urllib.parse import urlsplit

from flask import request
from werkzeug.wrappers import Response

from holdfast.ingest.http.parts import parts

__all__ = ["COOKIE_PATH", "YEAR_SECONDS", "set_cookie"]

COOKIE_PATH = "/console"

YEAR_SECONDS = 365 * 86_400


def set_cookie(
    response: Response, name: str, value: str, seconds: int, *, path: str = COOKIE_PATH, same_site: str = "Strict"
) -> None:
    """A cookie that scripts do not get."""
    response.set_cookie(
        name, value, max_age=seconds, path=path, secure=_is_secure(), httponly=True, samesite=same_site
    )  # fmt: skip


def _is_secure() -> bool:
    """Whether the browser came by TLS, which only a proxy in front knows, or the setting that names the console's address.
    Who claims it falsely gets a cookie that is not sent."""
    told = urlsplit(parts().settings.console_url or "")
    is_told = told.scheme == "https" and told.netloc == request.headers.get("Host", "").lower()
    return is_told or request.is_secure or request.headers.get("X-Forwarded-Proto", "").lower() == "https"
