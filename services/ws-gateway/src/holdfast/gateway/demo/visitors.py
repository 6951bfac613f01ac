"""Who looks at the demo: a random name in a cookie, and the audience that goes with it."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Self

from starlette.requests import Request
from starlette.responses import Response

from holdfast.gateway.clients.origins import Origins
from holdfast.gateway.demo.answers import Refusal

__all__ = ["Visitor", "refuse_strangers"]

COOKIE = "holdfast_demo"
COOKIE_SECONDS = 86_400

_NAME = re.compile(r"[0-9a-f]{32}", re.ASCII)

_OWN_HOST_ONLY = Origins(())
"""Whatever pages may connect for live updates: orders are placed by the demo's own page."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """A browser. ``name`` is 32 hexadecimal digits that nobody else can guess, and is never part of an answer's body."""

    name: str

    @classmethod
    def of(cls, request: Request) -> Self:
        """Who the cookie says.

        Raises:
            Refusal: 401 without a cookie of ours.
        """
        named = request.cookies.get(COOKIE, "")
        if _NAME.fullmatch(named) is None:
            raise Refusal(401, "no_session", "this browser has no demo session; reload the page, and allow its cookie")
        return cls(named)

    @classmethod
    def known_or_new(cls, request: Request) -> Self:
        """Who the cookie says, or somebody new."""
        try:
            return cls.of(request)
        except Refusal:
            return cls(secrets.token_hex(16))

    @property
    def audience(self) -> str:
        """To whom this visitor's orders are addressed. A digest: operators see it, and shall not be able to order with it."""
        return f"demo-{hashlib.sha256(self.name.encode()).hexdigest()[:20]}"

    def remember(self, response: Response) -> None:
        """Set the cookie, for the folder of the page: without a path, which a proxy may have put a prefix before."""
        response.set_cookie(
            COOKIE, self.name, max_age=COOKIE_SECONDS, path=None, httponly=True, samesite="strict",
        )  # fmt: skip


def refuse_strangers(request: Request) -> None:
    """Let in what the page sends, and programs without a browser.

    Raises:
        Refusal: 403 for a request that another page has sent; 415 for what is no JSON, since a form on another page can
            send only what is none.
    """
    site = request.headers.get("sec-fetch-site", "same-origin")
    if site not in ("same-origin", "none") or not _OWN_HOST_ONLY.admit(request.headers):
        raise Refusal(403, "cross_origin", "the demo takes orders from its own page only; open /demo/ of this gateway")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "unsupported_format", "send application/json")
