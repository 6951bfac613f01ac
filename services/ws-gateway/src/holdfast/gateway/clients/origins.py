"""Browser origins: the one reading of ``HOLDFAST_ALLOWED_ORIGINS``, for WebSockets, event streams and CORS alike."""

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

import idna
from starlette.datastructures import Headers

from holdfast.domain.errors import ConfigurationError

__all__ = ["Origins"]

ANY = "*"

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.ASCII)
_HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]", re.ASCII)

_NO_ORIGIN = "it has to be like https://app.example.com or https://app.example.com:8443, or '*' for every origin"


class Origins:
    """Pages that may connect: those of this host, and of the allowed origins.

    Args:
        allowed: origins, however they are spelled: upper case, a slash at the end, a default port and Unicode host names
            mean what they mean to a browser. ``*`` allows every page.

    Raises:
        ConfigurationError: one of them is no origin. A pattern such as ``https://*.example.com`` is none.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._is_any = ANY in (origin.strip() for origin in allowed)
        self._allowed = frozenset(_checked(origin) for origin in allowed if origin.strip() != ANY)

    def admit(self, headers: Headers) -> bool:
        """Browsers name the page's origin and let any page connect anywhere; what is no browser names none."""
        named = headers.get("origin")
        if named is None or self._is_any:
            return True
        origin = _normal(named)
        return origin is not None and (origin in self._allowed or origin == _own(origin, headers.get("host", "")))


def _checked(text: str) -> str:
    origin = _normal(text.strip().removesuffix("/"))
    if origin is None:
        raise ConfigurationError(f"HOLDFAST_ALLOWED_ORIGINS: {text!r} is no origin; {_NO_ORIGIN}")
    return origin


def _own(origin: str, host: str) -> str | None:
    """This host's origin. Whether it is reached by TLS is known to a proxy at most, so the page's scheme is taken."""
    return _normal(f"{urlsplit(origin).scheme}://{host}")


def _normal(text: str) -> str | None:
    """The origin as browsers write it (WHATWG HTML, serialization of an origin); ``None`` for anything else.

    ``null``, which every sandboxed page and local file is, is no origin that could be told from another one.
    """
    scheme, mark, rest = text.partition("://")
    scheme = scheme.lower()
    host, colon, port = rest.rpartition(":") if re.search(r":[0-9]*\Z", rest) else (rest, "", "")
    host = _ascii(host).lower()
    if not mark or _SCHEME.fullmatch(scheme) is None or _HOST.fullmatch(host) is None or (colon and not port):
        return None
    if port and (len(port) > 5 or not 0 < int(port) < 65536):
        return None
    return f"{scheme}://{host}" + (f":{int(port)}" if port and int(port) != _DEFAULT_PORTS.get(scheme) else "")


def _ascii(host: str) -> str:
    """A host name with its Unicode labels as browsers send them (UTS 46, as the URL standard says)."""
    try:
        return host if host.isascii() else idna.encode(host, uts46=True).decode()
    except idna.IDNAError:
        return ""
