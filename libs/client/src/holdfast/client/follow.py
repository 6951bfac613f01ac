"""Snapshot, then stream: the current events, then every change of them, with no change missed in between."""

import asyncio
import inspect
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from typing import Any

from holdfast.client.callbacks import call, is_final
from holdfast.client.events import StoredEvent
from holdfast.client.frames import Frame, Gap, Subscribed, UpdateReceived
from holdfast.client.live import TokenSource, spelled, watch
from holdfast.client.retry import backoff_seconds
from holdfast.client.versions import Versions, id_of, version_of

__all__ = ["follow"]

Event = Mapping[str, Any]
Fetched = Iterable[Event | StoredEvent]
Fetch = Callable[[], Fetched | Awaitable[Fetched]]


async def follow(
    live_url: str, token: TokenSource, *, topics: Iterable[str], fetch: Fetch
) -> AsyncGenerator[Event, None]:
    """Yield the current events of some topics, then each event again whenever it changes, until the caller stops.

    Fetches once every topic is live, and again after a gap. Updates that arrive meanwhile are kept, and yielded afterwards
    if they are newer. So what was yielded last for an event is its current state. Leave it with
    ``async with contextlib.aclosing(follow(…)) as events``.

    Args:
        live_url: ``ws://…/v1/live``.
        token: as for ``watch``.
        topics: as for ``watch``.
        fetch: reads the current events of the topics, such as ``lambda: client.events(audience="user-42", limit=100)``;
            a plain function is called in a thread, an ``async`` one in the event loop. When it raises, it is called again
            after a pause, unless the API refused the request for good. Its items are mappings with ``event_id`` (or ``id``)
            and ``version``, which are yielded unchanged; or :class:`~holdfast.client.StoredEvent`, of which ``raw`` is
            yielded.

    Raises:
        ClientError: as ``watch``; or the API refused the request of ``fetch`` for good.
    """
    names = list(map(spelled, topics))
    following = _Following(names, fetch)
    async with aclosing(watch(live_url, token, topics=names)) as frames:
        coming = asyncio.ensure_future(anext(frames))
        try:
            while True:
                await asyncio.wait(following.with_load(coming), return_when=asyncio.FIRST_COMPLETED)
                news = following.loaded()
                if coming.done():
                    frame, coming = coming.result(), asyncio.ensure_future(anext(frames))
                    news = [*news, *following.take(frame)]
                for event in news:
                    yield event
        finally:
            await _end(coming)
            await following.end()


class _Following:
    """The versions yielded so far, the updates kept back, and the snapshot being fetched."""

    def __init__(self, topics: Iterable[str], fetch: Fetch) -> None:
        self._starting = set(topics)
        self._fetch = fetch
        self._versions = Versions()
        self._kept: dict[str, Event] | None = {}  # the newest of each event; None: nothing is kept back
        self._load: asyncio.Future[list[Event]] | None = None

    def with_load(self, coming: "asyncio.Future[Frame]") -> "set[asyncio.Future[Any]]":
        """The futures to wait for: the next frame, and the snapshot if one is being fetched."""
        return {coming} if self._load is None else {coming, self._load}

    def take(self, frame: Frame) -> list[Event]:
        """The events to yield after a frame. Updates that arrive while a snapshot is fetched are kept back."""
        match frame:
            case UpdateReceived():
                if self._kept is None:
                    return self._news([frame.event])
                _keep(self._kept, frame.event)
            case Subscribed() if frame.topic in self._starting:
                self._starting.remove(frame.topic)
                if not self._starting and self._load is None:
                    self._begin(0.0)
            case Gap() if not self._starting:
                self._begin(random.uniform(0, frame.jitter_ms / 1000))  # noqa: S311 (spreads load)
        return []

    def loaded(self) -> list[Event]:
        """The events to yield if a snapshot has been fetched: its own, then the updates kept back meanwhile."""
        if self._load is None or not self._load.done():
            return []
        events = [*self._load.result(), *(self._kept or {}).values()]
        self._load = self._kept = None
        return self._news(events)

    async def end(self) -> None:
        """Cancel the fetching of a snapshot."""
        if self._load is not None:
            await _end(self._load)

    def _begin(self, delay_seconds: float) -> None:
        if self._load is not None:
            self._load.cancel()  # it may have read states from before the gap
        self._kept = self._kept or {}
        self._load = asyncio.ensure_future(self._snapshot(delay_seconds))

    async def _snapshot(self, delay_seconds: float) -> list[Event]:
        failures = 0
        while True:
            await asyncio.sleep(delay_seconds)
            try:
                return await call(self._read)
            except Exception as exc:
                if is_final(exc):
                    raise
                failures += 1
                delay_seconds = backoff_seconds(failures, random.random())  # noqa: S311 (jitter)

    def _read(self) -> list[Event] | Awaitable[list[Event]]:
        """Call ``fetch`` and list its items in the same thread: an iterator blocks while it requests each page."""
        fetched = self._fetch()
        return _awaited(fetched) if inspect.isawaitable(fetched) else _listed(fetched)

    def _news(self, events: Iterable[Event]) -> list[Event]:
        return [event for event in events if self._versions.is_news(event)]


async def _awaited(fetching: Awaitable[Fetched]) -> list[Event]:
    return _listed(await fetching)


def _listed(fetched: Fetched) -> list[Event]:
    return [item.raw if isinstance(item, StoredEvent) else item for item in fetched]


def _keep(kept: dict[str, Event], event: Event) -> None:
    known = kept.get(id_of(event))
    if known is None or version_of(known) < version_of(event):
        kept.pop(id_of(event), None)  # reinserted at the end: events are yielded in the order of their newest updates
        kept[id_of(event)] = event


async def _end(task: "asyncio.Future[Any]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await task
