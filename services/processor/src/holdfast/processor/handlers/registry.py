"""Handlers: how they are declared, and which of them serves a type."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter

from holdfast.domain.errors import ConfigurationError
from holdfast.domain.event_types import fits, read_route
from holdfast.domain.limits import Concurrency, Rate
from holdfast.domain.retry import DEFAULT_BACKOFF, Backoff
from holdfast.domain.routes import Route
from holdfast.domain.turns import DEFAULT_PRIORITY
from holdfast.domain.window_options import Debounce, Unique
from holdfast.processor.handlers.around import Around, Layer, check_around
from holdfast.processor.handlers.context import Context
from holdfast.processor.handlers.declaration import place_of, signature_of
from holdfast.processor.handlers.flow import PLAIN_FLOW, Flow, flow_of
from holdfast.processor.handlers.options import (
    FAN_OUT_NAME,
    check_also,
    check_async,
    check_batch,
    check_declared,
    check_running,
)
from holdfast.processor.handlers.schedules import NO_DATA, Declared, Schedules, schedule_of

__all__ = ["FAN_OUT", "Handler", "Handlers", "declarations_of"]

Function = TypeVar("Function", bound=Callable[..., Any])

DEFAULT_TIMEOUT_SECONDS = 60.0
"""A minute, as River's jobs have: longer work says so, and work that hangs is noticed."""


_DECLARATIONS = "__holdfast_handlers__"
"""Attribute of a declared function."""


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
    is_async: bool = False
    """Whether it runs on the event loop of its process."""
    is_also: bool = False
    """Whether it serves events that are made for it, beside the one that another handler serves."""
    layers: tuple[Layer, ...] = ()
    """What is around it, outermost first: one layer for each collection that it is in."""

    @property
    def arounds(self) -> Iterable[Around]:
        """What is around it now, outermost first."""
        return chain.from_iterable(layer.of(is_async=self.is_async) for layer in self.layers)

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
        self._also: list[Handler] = []
        self._layer = Layer()
        self._schedules = Schedules()

    def on(
        self,
        *patterns: str,
        name: str,
        retry: Backoff = DEFAULT_BACKOFF,
        final: tuple[type[Exception], ...] = (),
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        transactional: bool | None = None,
        ordering: Literal["subject"] | None = None,
        batch: int = 1,
        priority: int = DEFAULT_PRIORITY,
        pool: str | None = None,
        limit: Concurrency | None = None,
        rate: Rate | None = None,
        also: bool = False,
    ) -> Callable[[Function], Function]:
        """Declare a function, ``def`` or ``async def``, the handler of event types.

        Args:
            patterns: event types. ``*`` stands for any run of characters, dots and none at all included. An exact type
                beats a pattern, a longer pattern a shorter one (of equally long ones the last in the alphabet).
            name: stable: part of the idempotency key, of metrics and of the processed-event log.
            retry: when a failed attempt is tried again.
            final: exceptions after which it is not.
            timeout: seconds that an attempt may take, at most a day. Then it has failed (``timeout``).
            transactional: ``False`` for handlers that talk to the network: they run without an open transaction and
                ``ctx.session``, and a heartbeat keeps their lease. So do all ``async def`` handlers, on one event loop.
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
            also: serve these types beside their handler: before that begins an event is made for this one, with the same
                type and data, which is tried, processed or dead by itself. Any number of handlers may do so.

        Raises:
            ConfigurationError: a name or pattern that cannot be or is taken, an option of the wrong type or one that an
                ``async def`` handler cannot have, or a function with another signature than ``(payload, ctx)`` or, for
                lists, ``(payloads, ctx)``.
        """

        def register(function: Function) -> Function:
            place, signature = place_of(function), signature_of(function)
            check_declared(place, patterns, name, retry, final)
            check_running(place, timeout, transactional, ordering)
            flow = flow_of(place, priority=priority, pool=pool, limit=limit, rate=rate)
            is_transactional = not signature.is_async if transactional is None else transactional
            if signature.is_async:
                check_async(place, batch, is_transactional)
            check_batch(place, batch, is_transactional, signature.is_bulk)
            check_also(place, also, ordering)
            handler = Handler(
                name, patterns, function, signature.payload, retry, final, place,
                timeout_seconds=timeout, is_transactional=is_transactional, is_ordered=ordering == "subject",
                batch=batch, is_bulk=signature.is_bulk, flow=flow, is_async=signature.is_async, is_also=also,
                layers=(self._layer,),
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
        debounce: Debounce | None = None,
        unique: Unique | None = None,
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
            debounce: ``Debounce(30, key="…")``: of the key's events only the last runs, those of ticks and others.
            unique: ``Unique(3600, key="…")``: only the first; a tick within the time has no event.

        Raises:
            ConfigurationError: an argument is wrong, or the tenant has a schedule of this name in this collection.
        """
        self._schedules.add(
            schedule_of(
                cron, name=name, tenant=tenant, type=type, tz=tz, data=data, missed=missed, overlap=overlap,
                source=source, subject=subject, audience=audience, debounce=debounce, unique=unique,
            )
        )  # fmt: skip

    def around(self, function: Function) -> Function:
        """Put a function around every attempt of this collection's handlers, those declared or included later as well.

        ``function(attempt, call)`` runs where the handler does: in its transaction, in its time, once an attempt. It calls
        ``call()`` once and returns what the attempt shall return. What it raises is the attempt's failure, as if the
        handler had raised it. The first one is outermost; those of a collection that includes this one are outside of it.

        An ``async def`` function is around ``async def`` handlers, a plain one around the others. A collection with handlers
        of both kinds has none, or both; a processor refuses to start otherwise.

        Raises:
            ConfigurationError: it is not a function of two arguments that returns.
        """
        check_around(function)
        self._layer.add(function)
        return function

    def include(self, other: "Handlers") -> None:
        """Take over the handlers and schedules that another collection has by now, with what is around them there.

        Raises:
            ConfigurationError: both have the same name or pattern.
        """
        for handler in other:
            self._add(replace(handler, layers=(self._layer, *handler.layers)))
        for declared in other.schedules:
            self._schedules.add(declared)

    def find(self, route: str) -> Handler | None:
        """The handler that serves a type, or events that were made for one handler (``StoredEvent.route``); or ``None``.

        Where handlers serve the type only beside another one, and there is no other one, it is ``FAN_OUT``.
        """
        if handler := self._by_pattern.get(route):
            return handler
        event_type, name = read_route(route)
        if name is not None:
            return self._by_name.get(name)
        fitting = [pattern for pattern in self._by_pattern if "*" in pattern and fits(pattern, event_type)]
        if fitting:
            return self._by_pattern[max(fitting, key=_rank)]
        return FAN_OUT if self.also(event_type) else None

    def also(self, event_type: str) -> Sequence[Handler]:
        """The handlers that serve a type beside the one that :meth:`find` answers with, in the order of their declaration."""
        if not self._also:
            return ()
        return [each for each in self._also if any(fits(pattern, event_type) for pattern in each.patterns)]

    @property
    def has_also(self) -> bool:
        """Whether any handler serves events beside another one."""
        return bool(self._also)

    def check(self) -> None:
        """Refuse what can only be seen once everything is declared.

        Raises:
            ConfigurationError: a handler would run without what is around the others of its collection.
        """
        for handler in self:
            for layer in handler.layers:
                layer.check(is_async=handler.is_async, name=handler.name, place=handler.place)

    def is_ordered(self, route: str) -> bool | None:
        """Whether the type's handler takes the events of a subject in order; ``None`` for a type that nobody here serves."""
        handler = self.find(route)
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
        if handler.is_also:
            self._by_name[handler.name] = handler
            self._also.append(handler)
            return
        for pattern in handler.patterns:
            if taken := self._by_pattern.get(pattern):
                raise ConfigurationError(
                    f"two handlers claim {pattern!r}: {taken.name} at {taken.place} and {handler.name} at"
                    f" {handler.place}; exactly one handler serves a type, and those with also=True beside it"
                )
        self._by_name[handler.name] = handler
        self._by_pattern.update(dict.fromkeys(handler.patterns, handler))


def declarations_of(function: Callable[..., Any]) -> Sequence[Handler]:
    """As what a function is declared, in any collection."""
    return tuple(getattr(function, _DECLARATIONS, ()))


def _serve_nothing(data: Any, ctx: Context) -> None:
    """Nobody but ``also`` handlers serves the type: events for those were made before this is called."""


FAN_OUT = Handler(
    FAN_OUT_NAME, (), _serve_nothing, TypeAdapter(Any), DEFAULT_BACKOFF, (), place_of(_serve_nothing),
    timeout_seconds=DEFAULT_TIMEOUT_SECONDS, is_transactional=True, is_ordered=False,
)  # fmt: skip
"""Serves types that only ``also`` handlers are declared for: their events are processed once those for these are made."""


def _rank(pattern: str) -> tuple[bool, int, str]:
    """The higher one serves a type that two patterns fit."""
    return "*" not in pattern, len(pattern), pattern
