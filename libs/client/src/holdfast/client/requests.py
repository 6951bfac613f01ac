"""What every part of the client asks with: requests, pages of a list, and requests that may be repeated."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from uuid import uuid4

import httpx

from holdfast.client.answers import read

__all__ = ["JSON", "PAGE", "Requests"]

PAGE = 200
"""Items per request; the API returns no more at once."""

JSON = "application/json"

Item = TypeVar("Item")


class Requests:
    """The base of what :class:`~holdfast.client.Client` is made of, which has :meth:`_request`."""

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Any = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        raise NotImplementedError

    def _pages(
        self, path: str, filters: Mapping[str, str | None], read_item: Callable[[Any], Item], limit: int | None
    ) -> Iterator[Item]:
        """The items of a list, page by page; filters that are ``None`` are left out."""
        present = {name: value for name, value in filters.items() if value is not None}
        remaining_count, cursor = limit, None
        while remaining_count is None or remaining_count > 0:
            size = PAGE if remaining_count is None else min(remaining_count, PAGE)
            params = present | {"limit": str(size)} | ({"cursor": cursor} if cursor else {})
            items, cursor = read(self._request("GET", path, params=params), lambda body: _page(body, read_item))
            yield from items
            remaining_count = None if remaining_count is None else remaining_count - len(items)
            if cursor is None:
                return

    def _act(self, path: str, body: Any = None) -> httpx.Response:
        """A POST that is done once however often it is sent."""
        headers = {"Idempotency-Key": uuid4().hex}
        return self._request("POST", path, body=body, content_type=JSON, headers=headers)


def _page(body: Any, read_item: Callable[[Any], Item]) -> tuple[list[Item], str | None]:
    return list(map(read_item, body["items"])), body["next_cursor"]
