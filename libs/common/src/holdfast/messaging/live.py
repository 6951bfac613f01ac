"""The live window in Redis: publishing updates to topics, and the names and replies that the gateway reads.

Per topic a meta hash (epoch, offset), a stream of the last updates, and a channel. Names carry the tenant, so equal topics
of two tenants never meet. All of it may vanish at any time: PostgreSQL's outbox is what makes updates safe.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import redis
from redis.exceptions import NoScriptError

from holdfast.domain.errors import LiveWindowUnavailable
from holdfast.domain.update import Update
from holdfast.messaging.connect import redis_client, translated
from holdfast.messaging.contracts import encode_update

__all__ = [
    "MAX_UPDATE_BYTES",
    "PUBLISH_SCRIPT",
    "READ_SCRIPT",
    "REVOCATIONS_CHANNEL",
    "Publisher",
    "TopicKeys",
    "TopicReading",
    "UNPUBLISHED_SECONDS",
    "parse_message",
    "open_publisher",
    "parse_reading",
    "revocation_keys",
    "topic_keys",
]

PUBLISH_SCRIPT = files(__package__).joinpath("publish.lua").read_text()
READ_SCRIPT = files(__package__).joinpath("read.lua").read_text()


UNPUBLISHED_SECONDS = 60
"""How long a topic that nobody has published to is remembered after the last look at it. A client that comes back later is
told of a gap, and fetches what there is: nothing, most likely.
"""

MAX_UPDATE_BYTES = 64 * 1024
"""Of an update's body. A slow client is allowed 1 MiB of frames, so a single one must stay small beside that."""

TOGETHER = 50
"""Updates of one script call: Redis serves nobody else meanwhile, for some 2 ms."""

FORGOTTEN_TOGETHER = 100
"""Updates that are looked at in one round trip when events are to be forgotten; each may be as long as an update can be."""

REHEARSAL_SECONDS = 10
"""After which nothing is left in Redis of a rehearsed update."""

REVOCATIONS_CHANNEL = b"live:revocations"
"""Told the key of every revocation as it is made, so that gateways look at once."""


class TopicKeys(NamedTuple):
    """Names in Redis of one tenant's topic."""

    meta: str
    stream: str
    channel: str


@dataclass(frozen=True, slots=True)
class TopicReading:
    """The read script's answer. ``first`` is the oldest offset in the window, ``None`` when it is empty."""

    epoch: str
    top: int
    first: int | None
    entries: list[tuple[int, bytes]]


def topic_keys(tenant: str, topic: str) -> TopicKeys:
    """Where a topic lives. A tenant has no colon in it, so no two pairs share a name."""
    return TopicKeys(f"live:meta:{tenant}:{topic}", f"live:stream:{tenant}:{topic}", f"live:{tenant}:{topic}")


def parse_reading(reply: Sequence[Any]) -> TopicReading:
    """Read what ``READ_SCRIPT`` returned on a connection that does not decode replies."""
    epoch, top, first, flat = reply
    entries = list(zip((int(offset) for offset in flat[::2]), flat[1::2], strict=True))
    return TopicReading(bytes(epoch).decode(), int(top), None if first < 0 else int(first), entries)


def parse_message(payload: bytes) -> tuple[str, int, bytes]:
    """``(epoch, offset, body)`` of a message on a topic's channel. The body is not parsed."""
    position, _, body = payload.partition(b" ")
    epoch, _, offset = position.rpartition(b":")
    return epoch.decode(), int(offset), body


def revocation_keys(tenant: str, *, sub: str, jti: str) -> tuple[str, str]:
    """The names under which Redis says that a token counts no more: one for it alone, and one for its subject.

    The first one exists or not. The second one holds a second since 1970: tokens issued up to it are revoked. They are
    fields of the hash in ``revocations``, and keys of their own for gateways of the release before.
    """
    return f"live:revoked:token:{tenant}:{jti}", f"live:revoked:subject:{tenant}:{sub}"


def _marker(event_id: UUID, version: int, step: int) -> str:
    """The name under which Redis says that an update was published, for as long as the window."""
    return f"live:once:{event_id}:{version}:{step}"


def _bounded_body(update: Update) -> str:
    """The update's body, without the largest details where it would be too long; ``truncated`` then names them.

    An update that is not published at all would be a hole, and one that is cut anywhere no JSON. The event's API has it all.
    """
    body = encode_update(update)
    if 4 * len(body) <= MAX_UPDATE_BYTES:  # a character has four bytes at most
        return body
    detail, truncated = dict(update.detail), []
    while len(body.encode()) > MAX_UPDATE_BYTES:
        largest = max((name for name in detail if name != "truncated"), key=lambda name: len(json.dumps(detail[name])))
        truncated.append(largest)
        del detail[largest]
        detail["truncated"] = sorted(truncated)
        body = encode_update(replace(update, detail=detail))
    return body


def _event_of(fields: Mapping[bytes, bytes]) -> bytes:
    """The id of the event that an entry of a stream is about."""
    return str(json.loads(fields[b"u"])["id"]).encode()


class Publisher:
    """Writes updates into the live window, each at most once.

    Args:
        client: a Redis client whose timeouts and retries the caller has chosen.
        window_seconds, window_updates: what a client that comes back can still be given.
    """

    def __init__(self, client: "redis.Redis", *, window_seconds: int, window_updates: int) -> None:
        self._client = client
        self._digest = hashlib.sha1(PUBLISH_SCRIPT.encode(), usedforsecurity=False).hexdigest()
        self._window = (window_seconds, window_updates)

    def publish(self, updates: Sequence[Update]) -> None:
        """Publish in the given order, in one round trip. Publishing an update again is invisible to clients.

        Raises:
            LiveWindowUnavailable: some may not have been published; publish all of them again.
        """
        if updates:
            self._run([self._call(updates[start : start + TOGETHER]) for start in range(0, len(updates), TOGETHER)])

    def missing(self, keys: Sequence[tuple[UUID, int]]) -> list[tuple[UUID, int]]:
        """Those ``(event_id, version)`` whose updates were not published within the window, or whose markers Redis lost.

        Raises:
            LiveWindowUnavailable: ask again.
        """
        names = [_marker(event_id, version, 0) for event_id, version in keys]
        with translated(LiveWindowUnavailable):
            # As a rule all are there, and a count is cheaper to read than a list.
            if not names or self._client.exists(*names) == len(names):
                return []
            found: Any = self._client.mget(names)
        return [key for key, value in zip(keys, found, strict=True) if value is None]

    def forget(self, tenant: str, events: Sequence[tuple[UUID, str | None]]) -> None:
        """Empty the window of every topic that has an update of these events, given by id and audience.

        Clients of such a topic are told of a gap, and fetch what there is; those that follow their tenant go on.

        Raises:
            LiveWindowUnavailable: some of it may still be there; forget all of it again.
        """
        if not events:
            return
        audiences = sorted({audience for _, audience in events if audience is not None})
        ids = frozenset(str(event_id).encode() for event_id, _ in events)
        with translated(LiveWindowUnavailable):
            own = [key for event_id, _ in events for key in topic_keys(tenant, f"event:{event_id}")[:2]]
            self._client.unlink(*own)
            for topic in (topic_keys(tenant, f"audience:{audience}") for audience in audiences):
                # The name is an erased one too: what follows gets another epoch, as after a flush.
                if self._tells_of(topic.stream, ids, if_empty=True):
                    self._client.unlink(topic.meta, topic.stream)
            stream = topic_keys(tenant, f"tenant:{tenant}").stream
            if self._tells_of(stream, ids, if_empty=False):
                self._client.unlink(stream)

    def _tells_of(self, stream: str, ids: frozenset[bytes], *, if_empty: bool) -> bool:
        """Whether a stream has an update about one of these events."""
        after, is_empty = "-", True
        while True:
            page: Any = self._client.xrange(stream, min=after, count=FORGOTTEN_TOGETHER)
            if any(_event_of(fields) in ids for _, fields in page):
                return True
            is_empty = is_empty and not page
            if len(page) < FORGOTTEN_TOGETHER:
                return is_empty and if_empty
            after = "(" + page[-1][0].decode()

    def ping(self) -> None:
        """Publish to a topic that nobody can subscribe to: a Redis that answers and takes no updates is of no use.

        Raises:
            LiveWindowUnavailable: an update would not be taken: Redis is away, a read-only replica, or does not let this user
                do all that publishing does.
        """
        topic = topic_keys("", "rehearsal")  # no tenant is called ""
        keys = [f"live:once:rehearsal:{uuid4()}", topic.meta, topic.stream]
        self._run([(keys, [REHEARSAL_SECONDS, 1, "{}", 1, topic.channel])])

    def close(self) -> None:
        """Let go of Redis. May be called again."""
        self._client.close()

    def _run(self, calls: Sequence[tuple[list[str], list[Any]]]) -> None:
        with translated(LiveWindowUnavailable):
            try:
                self._evaluate(calls)
            except NoScriptError:
                # Redis was restarted or flushed its scripts. Asking before every call would cost a round trip each time.
                self._client.script_load(PUBLISH_SCRIPT)
                self._evaluate(calls)

    def _evaluate(self, calls: Sequence[tuple[list[str], list[Any]]]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for keys, arguments in calls:
            pipeline.evalsha(self._digest, len(keys), *keys, *arguments)
        pipeline.execute()

    def _call(self, updates: Sequence[Update]) -> tuple[list[str], list[Any]]:
        keys: list[str] = []
        arguments: list[Any] = [*self._window]
        for update in updates:
            topics = [topic_keys(update.tenant, topic) for topic in update.topics]
            keys.append(_marker(update.event_id, update.version, update.step))
            arguments += (_bounded_body(update), len(topics))
            for meta, stream, channel in topics:
                keys += (meta, stream)
                arguments.append(channel)
        return keys, arguments


def open_publisher(url: str, *, timeout_seconds: float, window_seconds: int, window_updates: int) -> Publisher:
    """A publisher with a connection of its own, whose calls take ``timeout_seconds`` at most. Does not connect yet."""
    client = redis_client(url, timeout_seconds=timeout_seconds)
    return Publisher(client, window_seconds=window_seconds, window_updates=window_updates)
