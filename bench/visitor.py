"""Somebody at the console, as a browser without script is: keeps the cookie, and sends what a page's forms would."""

import html
import re
from collections.abc import Mapping
from typing import Self

import httpx

__all__ = ["Visitor"]

_HIDDEN = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)">')


class Visitor:
    """A session at the console, signed in with an API key. ``url``: where ingest is.

    Raises:
        ValueError: the key is not let in.
    """

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx.Client(base_url=f"{url}/console", timeout=60, headers={"Origin": url})
        answer = self.send("/sign-in", {"key": key}, form="/sign-in")
        if answer.status_code != 303:
            raise ValueError(f"the console answered the sign-in with {answer.status_code}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave; the session ends by itself."""
        self._http.close()

    def get(self, path: str) -> httpx.Response:
        """A page, or where it leads."""
        return self._http.get(path)

    def text(self, path: str) -> str:
        """What somebody reads on a page, more or less.

        Raises:
            ValueError: the page is an error.
        """
        answer = self.get(path)
        if answer.status_code != 200:
            raise ValueError(f"{path} was answered with {answer.status_code}")
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text.partition("<main")[2])).split())

    def send(self, path: str, values: Mapping[str, str], *, form: str) -> httpx.Response:
        """Fill in the form that is on the page ``form``: with its hidden fields, and these values."""
        hidden = {name: html.unescape(value) for name, value in _HIDDEN.findall(self.get(form).text)}
        return self._http.post(path, data=hidden | dict(values))
