"""What a handler is given beside its payload."""

import os
import traceback
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from holdfast.domain.event import NewEvent, NewGroup, StoredEvent
from holdfast.domain.window_options import Debounce, Unique
from holdfast.processor.handlers.emitting import Emitter
from holdfast.processor.handlers.steps import NO_STEPS, NO_STEPS_ON_LOOP, Steps
from holdfast.runtime.logging import Logger
from holdfast.storage import Session

__all__ = ["Context", "Report"]

Report = Callable[[float, str | None], None]
"""Called with fraction (0 to 1) and message."""

MAX_MESSAGE = 200
"""Characters of a progress message: it is shown in a line."""


class Context:
    """One attempt at one event.

    Attributes:
        event: the event with its attributes; ``event.data`` is the payload before it became a model.
        attempt: which attempt this is, 1 for the first.
        log: a structured logger that knows the event.
        idempotency_key: the same in every attempt: hand it to the other side of a call that must not happen twice.
    """

    def __init__(
        self,
        *,
        event: StoredEvent,
        handler: str,
        attempt: int,
        open_session: Callable[[], Session] | None,
        log: Logger,
        report: Report,
        is_cancelled: Callable[[], bool] = lambda: False,
        steps: Steps | None = None,
        is_async: bool = False,
    ) -> None:
        self.event = event
        self.attempt = attempt
        self._open_session = open_session
        self.log = log
        self.idempotency_key = f"{event.id}:{handler}"
        self._report = report
        self._is_cancelled = is_cancelled
        self._steps = steps
        self._is_async = is_async
        self._emitter = Emitter(event, handler)
        self._pid = os.getpid()

    @property
    def session(self) -> Session:
        """A SQLAlchemy session in the transaction in which the event becomes ``processed``.

        What is written through it commits with that, or not at all; it refuses to commit or roll back by itself. The
        transaction begins when it is first asked for: a handler that never does needs none of its own.

        Raises:
            LeaseLost, AlreadyProcessed, sqlalchemy.exc.DBAPIError: the transaction cannot begin; let it out, the attempt is
                over.
            RuntimeError: the handler is ``async def`` or declared with ``transactional=False``; or this is a process that it
                forked.
        """
        self._refuse_in_child()
        if self._is_async:
            raise RuntimeError(
                "an async def handler has no ctx.session, which would hold up the event loop and every handler on it; use an"
                " async connection of your own and ctx.idempotency_key, or declare the handler with def"
            )
        if self._open_session is None:
            raise RuntimeError(
                "a handler with transactional=False has no ctx.session: nothing would commit with 'processed';"
                " use a connection of your own and ctx.idempotency_key, or declare it transactional"
            )
        return self._open_session()

    @property
    def cancelled(self) -> bool:
        """Whether to stop: the time is up, or the event may be with another worker by now.

        For handlers with ``transactional=False``, to be looked at between two calls to the other side. Return or raise soon.
        An ``async def`` handler is cancelled as well when its time is up (``asyncio.CancelledError``, where it awaits).
        """
        return self._is_cancelled()

    def progress(self, fraction: float, message: str | None = None) -> None:
        """Tell clients, now, how far the handler is; ``fraction`` is from 0 to 1, ``message`` at most 200 characters.

        At most about ten a second are told. Told once, whether or not the attempt succeeds later, and not stored.

        Raises:
            RuntimeError: this is a process that the handler forked.
        """
        self._refuse_in_child()
        told = min(1.0, max(0.0, fraction))  # in this order NaN, which JSON does not have, becomes 0
        self._report(told, None if message is None else _printable(message))

    def step(self, name: str, function: Callable[[], Any]) -> Any:
        """Call a function once for this event, whatever becomes of the attempts: ``ctx.step("charge", lambda: …)``.

        Its result is stored before this returns. A later attempt gets the stored result and does not call the function; the
        name says which. For handlers with ``transactional=False``.

        The function is called again if its worker is lost before the result is stored. Hand
        ``f"{ctx.idempotency_key}:charge"`` to the other side where that must not have an effect.

        Args:
            name: unique in the attempt, 1 to 100 printable characters; in a loop such as ``f"charge-{number}"``.
            function: takes nothing and returns what JSON can carry, at most 32 KiB, or ``None``.

        Returns:
            What JSON makes of its result, in each attempt alike: a tuple becomes a list.

        What the function raises is passed on, and nothing is stored. An event has at most 1000 steps and sleeps, whose
        results have 4 MiB together.

        Raises:
            ValueError, TypeError: a name that is used or cannot be, too many steps, or no function; nothing was called.
            InvalidResult: the result cannot be stored. Let it out: the event is dead, since it was done already.
            RuntimeError: the handler is transactional or ``async def``, or this is a process that it forked.
        """
        return self._stepping().run(name, function)

    def sleep(self, duration: float | timedelta | str, *, name: str = "sleep") -> None:
        """Wait between two steps, for as long as a year, without a thread: ``ctx.sleep("1 day")``.

        The attempt ends here, without being spent, and the event is queued. A later attempt runs the handler from its
        beginning, gets the results of its steps, and goes on past the sleep: so let what this raises out, and put into steps
        what must not happen twice. The time counts from the first attempt that came here. For handlers with
        ``transactional=False``.

        Args:
            duration: seconds, a ``timedelta``, or a text such as ``"90 min"``, ``"1 day"``, ``"1 h 30 min"``.
            name: unique among the names of steps and sleeps of the attempt.

        Raises:
            ValueError: the duration or the name is none, or the name is used.
            RuntimeError: the handler is transactional or ``async def``, or this is a process that it forked.
        """
        self._stepping().sleep(duration, name)

    def emit(
        self,
        type: str,  # noqa: A002 (the CloudEvents attribute)
        data: Any = None,
        *,
        subject: str | None = None,
        audience: str | None = None,
        deliver_at: datetime | None = None,
        key: str | None = None,
        debounce: Debounce | None = None,
        unique: Unique | None = None,
        **extensions: str | int | bool,
    ) -> None:
        """Make another event, which exists exactly if this one is processed: they are committed together.

        Args:
            data: what JSON can carry, or a pydantic model; at most 256 KiB.
            deliver_at: when it is due, with a time zone; at once if it is past, or ``None``.
            key: its id, for one that must not be made twice whichever event makes it: where an event with this key was made
                by a handler of this name before, nothing is made. Without it each processed event makes its own.
            debounce: ``Debounce(30, key="…")``: of the key's events only the last runs.
            unique: ``Unique(3600, key="…")``: of the key's events only the first runs (docs/howto-windows.md).
            extensions: further CloudEvents attributes, of lower-case letters and digits.

        Nothing is made by an attempt that fails. At most 1000 events with 4 MiB of data are made by one attempt.

        Raises:
            ValueError, TypeError: an attribute or the data is none; the message says which and what to pass.
            RuntimeError: the attempt is over, or this is a process that the handler forked.
        """
        self._refuse_in_child()
        self._emitter.emit(
            type, data, subject=subject, audience=audience, deliver_at=deliver_at, key=key, debounce=debounce,
            unique=unique, extensions=extensions,
        )  # fmt: skip

    def emit_group(
        self,
        members: Iterable[Mapping[str, Any]],
        then: tuple[str, Any],
        *,
        subject: str | None = None,
        audience: str | None = None,
    ) -> None:
        """Make events, and one more once each of them has ended: fan-out with fan-in.

        ::

            ctx.emit_group(
                [{"type": "com.acme.page.scan", "data": {"page": page}} for page in pages],
                then=("com.acme.document.scanned", {"document": document_id}),
            )

        Args:
            members: what :meth:`emit` takes, as mappings with ``type``; but no ``key`` and no ``unique``. They count among
                its 1000 events.
            then: type and data of the event that follows. Its data is
                ``{"group": id, "processed": n, "dead": n, "discarded": n, "data": the data given here}``.
            subject: of that event.
            audience: of that event.

        A member counts once, with the state in which it first ends; one that is dead has ended. The event is recorded with
        the end of the last one, exactly once. A group without members is followed by its event at once.

        Raises:
            ValueError, TypeError, RuntimeError: as :meth:`emit`.
        """
        self._refuse_in_child()
        self._emitter.emit_group(members, then, subject=subject, audience=audience)

    def close(self) -> tuple[tuple[NewEvent, ...], tuple[NewGroup, ...]]:
        """What was emitted. Holdfast calls it once the handler has returned; nothing can be emitted after that."""
        return self._emitter.close()

    def _stepping(self) -> Steps:
        self._refuse_in_child()
        if self._is_async:
            caller = traceback.extract_stack(limit=3)[0]  # of step or sleep
            raise RuntimeError(f"{caller.filename}:{caller.lineno}: {NO_STEPS_ON_LOOP}")
        if self._steps is None:
            raise RuntimeError(NO_STEPS)
        return self._steps

    def _refuse_in_child(self) -> None:
        """Before any lock is waited for that another thread held at the fork: nobody would ever free it here."""
        if os.getpid() != self._pid:
            raise RuntimeError(
                "a process that a handler forked has none of ctx.session, ctx.step, ctx.progress and ctx.emit, which are"
                " those of the worker: hand results back to the handler, and open connections of your own"
            )


def _printable(message: str) -> str:
    """Half a surrogate pair has no UTF-8 and would fail the handler for a message."""
    return str(message)[:MAX_MESSAGE].encode(errors="replace").decode()
