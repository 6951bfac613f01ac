"""Handlers: how they are declared, and which of them serves a type."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter

from holdfast.domain.errors import ConfigurationError
from holdfast.domain.event_types import fits
from holdfast.domain.limits import Concurrency, Rate
from holdfast.domain.retry import DEFAULT_BACKOFF, Backoff
from holdfast.domain.routes import Route
from holdfast.domain.turns import DEFAULT_PRIORITY
from holdfast.processor.handlers.around import Around, check_around
from holdfast.processor.handlers.declaration import place_of, signature_of
from holdfast.processor.handlers.flow import PLAIN_FLOW, Flow, flow_of
from holdfast.processor.handlers.schedules import NO_DATA, Declared, Schedules, schedule_of

__all__ = ["Handler", "Handlers", "declarations_of"]

Function = TypeVar("Function", bound=Callable[..., Any])

DEFAULT_TIMEOUT_SECONDS = 60.0
"""A minute, as River's jobs have: longer work says so, and work that hangs is noticed."""

MAX_TIMEOUT_SECONDS = 24 * 3600.0

MAX_BATCH = 100
"""Events in one transaction: they are all locked until its end."""

_DECLARATIONS = "__holdfast_handlers__"
"""Attribute of a declared function."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Handler:
    """One handler. ``payload`` makes its first argument; ``place`` is ``file:line``, for messages."""

    name: str
    patterns: tuple[str, ...]
    function: Callable[..., Any]
    payload: TypeAdapter[Any]
    retry: Backoff
    final: tuple[type[Exception], ...]
    place: str
    timeout_seconds: float
    is_transactional: bool
    is_ordered: bool
    batch: int = 1
    """How many events may share a transaction."""
    is_bulk: bool = False
    """Whether the function takes a list of payloads and a ``BatchContext``."""
    flow: Flow = PLAIN_FLOW
    """How many at once, in which pool, and which go first."""
    layers: tuple[Sequence[Around], ...] = ()
    """What is around it, outermost first: one sequence for each collection that it is in."""

    @property
    def arounds(self) -> Iterable[Around]:
        """What is around it now, outermost first."""
        return chain.from_iterable(self.layers)

    @property
    def limit(self) -> Concurrency | None:
        """How many may run at once."""
        return self.flow.limit

    @property
    def rate(self) -> Rate | None:
        """How many may start within a time."""
        return self.flow.rate

    @property
    def limits(self) -> Sequence[Concurrency | Rate]:
        """Both, as far as there are."""
        return [each for each in (self.flow.limit, self.flow.rate) if each is not None]

    @property
    def pool(self) -> str:
        """The pool that it is in; empty: that of handlers that name none."""
        return self.flow.pool

    @property
    def package(self) -> str:
        """The top-level package that the function was written in."""
        return self.function.__module__.partition(".")[0]


class Handlers:
    """A collection of handlers; a package offers one under the entry-point group ``holdfast.handlers``."""

    def __init__(self) -> None:
        self._by_pattern: dict[str, Handler] = {}
        self._by_name: dict[str, Handler] = {}
        self._arounds: list[Around] = []
        self._schedules = Schedules()

    def on(
        self,
        *patterns: str,
        name: str,
        retry: Backoff = DEFAULT_BACKOFF,
        final: tuple[type[Exception], ...] = (),
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        transactional: bool = True,
        ordering: Literal["subject"] | None = None,
        batch: int = 1,
        priority: int = DEFAULT_PRIORITY,
        pool: str | None = None,
        limit: Concurrency | None = None,
        rate: Rate | None = None,
    ) -> Callable[[Function], Function]:
        """Declare a function the handler of event types.

        Args:
            patterns: event types. ``*`` stands for any run of characters, dots and none at all included. An exact type
                beats a pattern, a longer pattern a shorter one (of equally long ones the last in the alphabet).
            name: stable: part of the idempotency key, of metrics and of the processed-event log.
            retry: when a failed attempt is tried again.
            final: exceptions after which it is not.
            timeout: seconds that an attempt may take, at most a day. Then it has failed (``timeout``).
            transactional: ``False`` for handlers that talk to the network: they run without an open transaction and
                ``ctx.session``, and a heartbeat keeps their lease.
            ordering: ``"subject"``: the events of one subject (and source) are taken one at a time, in the order in which
                they arrived, also across retries; a dead letter lets the next one pass.
            batch: up to so many events that are due at the same moment share a transaction, 100 at most; each has its own
                savepoint and outcome. For short handlers that write through ``ctx.session``. A function of a list of payloads
                and a ``BatchContext`` is called once for all of them.
            priority: 0 to 9, of events that do not name one themselves; 9 goes first, and a step is worth ten minutes of
                waiting.
            pool: only processors that serve it (``HOLDFAST_POOL``) run the handler. Those that name no pool serve all.
            limit: how many of its events run at once, over all processes: ``Concurrency(5, key="subject")``.
            rate: how many of its attempts start within a time, over all processes: ``Rate(100, per=60)``.

        Raises:
            ConfigurationError: a name or pattern that cannot be or is taken, an option of the wrong type, or a function
                with another signature than ``(payload, ctx)`` or, for lists, ``(payloads, ctx)``.
        """

        def register(function: Function) -> Function:
            place, signature = place_of(function), signature_of(function)
            _check(place, patterns, name, retry, final)
            _check_running(place, timeout, transactional, ordering)
            _check_batch(place, batch, transactional, signature.is_bulk)
            flow = flow_of(place, priority=priority, pool=pool, limit=limit, rate=rate)
            handler = Handler(
                name, patterns, function, signature.payload, retry, final, place,
                timeout_seconds=timeout, is_transactional=transactional, is_ordered=ordering == "subject",
                batch=batch, is_bulk=signature.is_bulk, flow=flow, layers=(self._arounds,),
            )  # fmt: skip
            self._add(handler)
            vars(function).setdefault(_DECLARATIONS, []).append(handler)
            return function

        return register

    def every(
        self,
        cron: str,
        *,
        name: str,
        tenant: str,
        type: str,  # noqa: A002 (the attribute's name)
        tz: str = "UTC",
        data: Any = NO_DATA,
        source: str | None = None,
        subject: str | None = None,
        audience: str | None = None,
        missed: Literal["latest", "all", "skip"] = "latest",
        overlap: Literal["allow", "skip"] = "allow",
    ) -> None:
        """Declare a schedule: an event for each tick, which the handler of its type processes as any other.

        A processor stores its declarations when it starts. One that is not declared any more stays until it is deleted
        (``holdfast schedules rm``).

        Args:
            cron: five fields, such as ``"0 7 * * mon-fri"``.
            name: unique in its tenant; part of the events' source.
            tenant: whose events they are.
            type: of the events.
            tz: the time zone that ``cron`` is in.
            data: of the events, to be written as JSON; without it they have none.
            source: of the events; ``/holdfast/schedules/<name>`` if not given.
            subject: of the events.
            audience: of the events: who sees them live.
            missed: which ticks have an event that came while Holdfast was down: the ``"latest"``, ``"all"`` (the latest
                1000), or with ``"skip"`` none that is older than a minute.
            overlap: ``"skip"``: a tick has no event while the one of the tick before is still open.

        Raises:
            ConfigurationError: an argument is wrong, or the tenant has a schedule of this name in this collection.
        """
        self._schedules.add(
            schedule_of(
                cron, name=name, tenant=tenant, type=type, tz=tz, data=data, missed=missed, overlap=overlap,
                source=source, subject=subject, audience=audience,
            )
        )  # fmt: skip

    def around(self, function: Function) -> Function:
        """Put a function around every attempt of this collection's handlers, those declared or included later as well.

        ``function(attempt, call)`` runs where the handler does: in its transaction, in its time, once an attempt. It calls
        ``call()`` once and returns what the attempt shall return. What it raises is the attempt's failure, as if the
        handler had raised it. The first one is outermost; those of a collection that includes this one are outside of it.

        Raises:
            ConfigurationError: it is not an ordinary function of two arguments.
        """
        check_around(function)
        self._arounds.append(function)
        return function

    def include(self, other: "Handlers") -> None:
        """Take over the handlers and schedules that another collection has by now, with what is around them there.

        Raises:
            ConfigurationError: both have the same name or pattern.
        """
        for handler in other:
            self._add(replace(handler, layers=(self._arounds, *handler.layers)))
        for declared in other.schedules:
            self._schedules.add(declared)

    def find(self, event_type: str) -> Handler | None:
        """The handler that serves a type, or ``None``."""
        if handler := self._by_pattern.get(event_type):
            return handler
        fitting = [pattern for pattern in self._by_pattern if "*" in pattern and fits(pattern, event_type)]
        return self._by_pattern[max(fitting, key=_rank)] if fitting else None

    def is_ordered(self, event_type: str) -> bool | None:
        """Whether the type's handler takes the events of a subject in order; ``None`` for a type that nobody here serves."""
        handler = self.find(event_type)
        return None if handler is None else handler.is_ordered

    def exact_types(self) -> list[str]:
        """The types that handlers name without ``*``."""
        return [pattern for pattern in self._by_pattern if "*" not in pattern]

    def named(self, name: str) -> Handler | None:
        """The handler of this name, or ``None``."""
        return self._by_name.get(name)

    def routes(self) -> Iterable[tuple[str, Route]]:
        """Where the events of each type and pattern are to be queued."""
        return [(pattern, handler.flow.route) for pattern, handler in self._by_pattern.items()]

    def pools(self) -> set[str]:
        """The pools of all handlers, and the one of handlers that name none."""
        return {"", *(handler.pool for handler in self)}

    @property
    def schedules(self) -> Iterable[Declared]:
        """The schedules that are declared, in their order."""
        return self._schedules

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def _add(self, handler: Handler) -> None:
        if taken := self._by_name.get(handler.name):
            raise ConfigurationError(
                f"two handlers are named {handler.name!r}: {taken.place} and {handler.place}; rename one"
            )
        for pattern in handler.patterns:
            if taken := self._by_pattern.get(pattern):
                raise ConfigurationError(
                    f"two handlers claim {pattern!r}: {taken.name} at {taken.place} and {handler.name} at"
                    f" {handler.place}; exactly one handler serves a type"
                )
        self._by_name[handler.name] = handler
        self._by_pattern.update(dict.fromkeys(handler.patterns, handler))


def declarations_of(function: Callable[..., Any]) -> Sequence[Handler]:
    """As what a function is declared, in any collection."""
    return tuple(getattr(function, _DECLARATIONS, ()))


def _check(place: str, patterns: tuple[Any, ...], name: Any, retry: Any, final: Any) -> None:
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ConfigurationError(f"{place}: a handler's name is 1 to 100 letters, digits, dots, dashes and underscores")
    if not patterns or not all(isinstance(each, str) and each and each.isprintable() for each in patterns):
        raise ConfigurationError(f"{place}: name at least one event type; a type is a text without control characters")
    if not isinstance(retry, Backoff):
        raise ConfigurationError(f"{place}: retry takes a Backoff, such as Backoff(first=2, attempts=5)")
    is_tuple = isinstance(final, tuple)
    if not is_tuple or not all(isinstance(each, type) and issubclass(each, Exception) for each in final):
        raise ConfigurationError(f"{place}: final takes a tuple of exception types, such as (ValueError,)")


def _check_running(place: str, timeout: Any, transactional: Any, ordering: Any) -> None:
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not is_number or not 0 < timeout <= MAX_TIMEOUT_SECONDS:
        raise ConfigurationError(f"{place}: timeout takes seconds, more than 0 and at most a day, such as timeout=30")
    if not isinstance(transactional, bool):
        raise ConfigurationError(f"{place}: transactional takes True or False")
    if ordering not in (None, "subject"):
        raise ConfigurationError(f'{place}: ordering takes "subject" or None')


def _check_batch(place: str, batch: Any, transactional: bool, is_bulk: bool) -> None:
    is_number = isinstance(batch, int) and not isinstance(batch, bool)
    if not is_number or not 1 <= batch <= MAX_BATCH:
        raise ConfigurationError(f"{place}: batch takes a whole number from 1 to {MAX_BATCH}, such as batch=50")
    if is_bulk and batch == 1:
        raise ConfigurationError(f"{place}: say how many events it takes at once, such as batch=50")
    if batch > 1 and not transactional:
        raise ConfigurationError(
            f"{place}: batch shares a transaction, which transactional=False does without; leave one of them out"
        )


def _rank(pattern: str) -> tuple[bool, int, str]:
    """The higher one serves a type that two patterns fit."""
    return "*" not in pattern, len(pattern), pattern
