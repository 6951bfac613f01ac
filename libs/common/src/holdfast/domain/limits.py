"""How many events of a handler may run at once, or start within a time: what is declared, and the names of the lines."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.domain.errors import ConfigurationError

__all__ = ["MAX_COUNT", "Concurrency", "Rate", "line_of", "needs_data"]

MAX_COUNT = 10_000
"""Of a limit. A rate keeps a row for each start within its window."""

PER_SECONDS = (1.0, 30 * 86_400.0)
"""The shortest and the longest window of a rate."""

MAX_POINTER_LENGTH = 200
"""Characters of a JSON Pointer."""

SLACK_SECONDS = 0.25
SLACK_PART = 0.05
"""The longest that an event may take from its claim to its start is 0.25 s or a twentieth of the window, if that is more. A
claim that is later is given back, and the window is counted from there: so no window has more starts than it may have."""


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most ``count`` events of the handler run at once, over all processes.

    Args:
        count: 1 to 10,000.
        key: counts by ``"tenant"``, by ``"subject"``, or by a value in the data (a JSON Pointer such as
            ``"/account/id"``, RFC 6901), the last two for each tenant; ``None`` counts all of the handler's events.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    count: int
    key: str | None = None

    def __post_init__(self) -> None:
        _check_count("Concurrency", self.count)
        _check_key("Concurrency", self.key)

    def line(self, handler: str, tenant: str, subject: str | None, data: Any) -> str:
        """Names what is counted together, and the line of the events that wait for it."""
        return line_of("limit", handler, self.key, tenant, subject, data)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``count`` events of the handler start within any ``per`` seconds, over all processes.

    Each attempt counts. Args: ``count`` and ``key`` as those of :class:`Concurrency`; ``per``, 1 second to 30 days.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    count: int
    per: float
    key: str | None = None

    def __post_init__(self) -> None:
        _check_count("Rate", self.count)
        _check_key("Rate", self.key)
        shortest, longest = PER_SECONDS
        if isinstance(self.per, bool) or not isinstance(self.per, int | float) or not shortest <= self.per <= longest:
            raise ConfigurationError(f"Rate: per is {shortest:g} to {longest:g} seconds, not {self.per!r}")

    @property
    def slack_seconds(self) -> float:
        """How late after its claim an event may start."""
        return max(SLACK_SECONDS, SLACK_PART * self.per)

    def line(self, handler: str, tenant: str, subject: str | None, data: Any) -> str:
        """As that of :class:`Concurrency`."""
        return line_of("rate", handler, self.key, tenant, subject, data)


def needs_data(limit: Concurrency | Rate | None) -> bool:
    """Whether its key is in the data."""
    return limit is not None and limit.key is not None and limit.key.startswith("/")


def line_of(kind: str, handler: str, key: str | None, tenant: str, subject: str | None, data: Any) -> str:
    """``kind:handler``, or with the tenant or 128 bits of a digest behind it.

    A digest, since a subject and a value in the data are not to be read where events wait. What has no value, such as no
    subject, counts together.
    """
    if key is None:
        return f"{kind}:{handler}"
    if key == "tenant":
        return f"{kind}:{handler}:{tenant}"
    found = subject if key == "subject" else _pointed_at(data, key)
    value = json.dumps([tenant, found])
    return f"{kind}:{handler}:{hashlib.sha256(value.encode()).hexdigest()[:32]}"


def _pointed_at(data: Any, pointer: str) -> str | None:
    found = data
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping):
            found = found.get(name)
        elif isinstance(found, Sequence) and not isinstance(found, str | bytes) and name.isdecimal():
            found = found[int(name)] if len(name) < 10 and int(name) < len(found) else None
        else:
            return None
    if found is None or isinstance(found, Mapping | list):
        return None
    return str(found)


def _check_count(what: str, count: Any) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_COUNT:
        raise ConfigurationError(f"{what}: count is a whole number from 1 to {MAX_COUNT}, not {count!r}")


def _check_key(what: str, key: Any) -> None:
    if key in (None, "tenant", "subject"):
        return
    if not isinstance(key, str) or not key.startswith("/") or len(key) > MAX_POINTER_LENGTH:
        raise ConfigurationError(
            f'{what}: key is "tenant", "subject", or a JSON Pointer into the data such as "/account/id", not {key!r}'
        )
