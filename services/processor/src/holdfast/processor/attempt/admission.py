"""Which due events may run now: those of this process's pools that nothing has paused, as far as limits and turns allow.

The others are put where they wait, in the transaction of the claim (``storage.aside``).
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from holdfast.domain.event import Doorbell, Lease
from holdfast.domain.event_types import read_route
from holdfast.domain.limits import Concurrency, Rate, needs_data
from holdfast.domain.pauses import LINE, Pauses
from holdfast.domain.turns import Turns, aged
from holdfast.processor.handlers.registry import Handler, Handlers
from holdfast.storage import Session, aside, limits, pauses
from holdfast.storage.candidates import Candidate, data_of
from holdfast.storage.claims import Limits
from holdfast.storage.routing import routing_of

__all__ = ["Admission"]

MOST_LINES = 256
"""Lines that one search looks at; the next one looks at those after them."""

NEVER_READ = -1


class Admission:
    """Judges for one process. For one thread at a time, but for :meth:`is_misfit`.

    Args:
        pools: which it serves; the empty one is that of handlers that name none.
    """

    def __init__(self, handlers: Handlers, pools: Collection[str]) -> None:
        self._handlers = handlers
        self.pools = sorted(pools)
        self._pauses = Pauses(NEVER_READ, ())
        self._turns = Turns()
        self._after_line = ""
        self._wakes: dict[str, float] = {}
        self.has_limits = any(each.limit is not None or each.rate is not None for each in handlers)

    @property
    def has_to_look(self) -> bool:
        """Whether events are looked at before they are claimed, since many are not to run now."""
        return self.has_limits or bool(self._pauses)

    def refresh(self, session: Session, version: int | None = None) -> None:
        """Read the pauses, unless they are of this version, or of the present one, already."""
        if (version if version is not None else pauses.version(session)) != self._pauses.version:
            self._pauses = pauses.read(session)

    def is_misfit(self, lease: Lease, handler: Handler) -> bool:
        """Whether an event that was claimed without a look has to be given up again."""
        event = lease.event
        if handler.pool not in self.pools or handler.limit is not None or handler.rate is not None:
            return lease.limit is None and lease.starts_by is None
        found = self._pauses.stopping(
            tenant=event.tenant, type_=event.type, handler=handler.name, pool=handler.pool
        )  # fmt: skip
        return found is not None

    def is_placed(self, session: Session, candidate: Candidate, handler: Handler | None) -> Doorbell | bool:
        """Whether the event may not run here, and waits where it belongs now; the doorbell to ring where that is a pool."""
        paused = self._pauses.stopping(
            tenant=candidate.tenant, type_=read_route(candidate.type)[0], handler=handler.name if handler else None,
            pool=handler.pool if handler else candidate.pool,
        )  # fmt: skip
        if paused is not None:
            aside.set_aside(session, {candidate.event_id: paused.line})
            return True
        if handler is not None and handler.pool not in self.pools:
            aside.set_pool(session, {candidate.event_id: handler.pool})
            return candidate.doorbell._replace(pool=handler.pool)
        return False

    def admit(
        self, session: Session, candidates: Sequence[Candidate], count: int
    ) -> tuple[Sequence[Candidate], Limits, Mapping[str, int]]:
        """Up to ``count`` that may run now, the limits they are to hold, and how many of which lines are to be called next.

        Those that a limit stops wait in its line.
        """
        lines = self._lines(session, candidates)
        ledger = _Ledger(session, lines)
        ordered = sorted(candidates, key=lambda each: (aged(each.due_at, each.priority), each.event_id))
        chosen = self._turns.choose(
            ordered, count, tenant=lambda each: each.tenant, weights=routing_of(session).weights, may_run=ledger.take
        )
        self._note_wakes(ledger.close())
        return chosen, ledger.held, ledger.called

    def started_by(self, leases: Iterable[Lease], began: float) -> list[Lease]:
        """With the moment by which an event that a rate counts has to have started; ``began``: before it was claimed."""
        return [self._started_by(each, began) for each in leases]

    def open_lines(self, session: Session, count: int) -> dict[str, int]:
        """Lines of which the first events may perhaps run now, and how many."""
        found = aside.lines(session, start=self._after_line, limit=MOST_LINES)
        self._after_line = found[-1] if len(found) == MOST_LINES else ""
        known = {line: self._limit_of(line) for line in found}
        running = limits.running(session, [line for line, limit in known.items() if isinstance(limit, Concurrency)])
        taken = limits.starts(session, [line for line, limit in known.items() if isinstance(limit, Rate)])
        room: dict[str, int] = {}
        for line, limit in known.items():
            if isinstance(limit, Concurrency):
                room[line] = limit.count - running.get(line, 0)
            elif isinstance(limit, Rate):
                room[line] = limit.count - taken[line].taken
                self._wakes[line] = time.monotonic() + taken[line].seconds
            else:
                room[line] = count if limit else 0
        return {line: min(each, count) for line, each in room.items() if each > 0}

    def next_wake(self) -> float | None:
        """When the next start of a rate is free for which events wait, in seconds of the monotonic clock."""
        now = time.monotonic()
        self._wakes = {line: at for line, at in list(self._wakes.items()) if at > now}
        return min(self._wakes.values(), default=None)

    def _limit_of(self, line: str) -> Concurrency | Rate | bool:
        """What holds a line up; for others whether its events may run."""
        if line.startswith(LINE):
            return all(each.line != line for each in self._pauses)
        kind, _, rest = line.partition(":")
        handler = self._handlers.named(rest.partition(":")[0])
        if handler is None:
            return True  # another processor's, which its events' types tell; or it has another name by now
        found = handler.limit if kind == "limit" else handler.rate
        return True if found is None else found

    def _lines(
        self, session: Session, candidates: Sequence[Candidate]
    ) -> dict[UUID, list[tuple[str, Concurrency | Rate]]]:
        handlers = {each.event_id: self._handlers.find(each.type) for each in candidates}
        limited = [(each, handler) for each in candidates if (handler := handlers[each.event_id]) and handler.limits]
        data = data_of(session, [each.event_id for each, handler in limited if any(map(needs_data, handler.limits))])
        return {
            each.event_id: [
                (limit.line(handler.name, each.tenant, each.subject, data.get(each.event_id)), limit)
                for limit in handler.limits
            ]
            for each, handler in limited
        }

    def _note_wakes(self, seconds: Mapping[str, float]) -> None:
        now = time.monotonic()
        self._wakes |= {line: now + each for line, each in seconds.items()}

    def _started_by(self, lease: Lease, began: float) -> Lease:
        handler = self._handlers.find(lease.event.route)
        if handler is None or handler.rate is None:
            return lease
        # Half of the slack is for what comes between the last look at the clock and the handler.
        return replace(lease, starts_by=began + handler.rate.slack_seconds / 2)


class _Ledger:
    """What is left of the limits of some candidates, under their locks."""

    def __init__(self, session: Session, lines: Mapping[UUID, Sequence[tuple[str, Concurrency | Rate]]]) -> None:
        self._session = session
        self._lines = lines
        self._by_line = {line: limit for each in lines.values() for line, limit in each}
        limits.lock(session, self._by_line)
        self._first = aside.first_waiting(session, self._by_line, but_for=lines)
        running = limits.running(session, _of(self._by_line, Concurrency))
        self._starts = limits.starts(session, _of(self._by_line, Rate))
        self._left = {
            line: limit.count - (self._starts[line].taken if line in self._starts else running.get(line, 0))
            for line, limit in self._by_line.items()
        }
        self._taken: dict[str, int] = {}
        self._waiting: dict[UUID, str] = {}
        self.held: dict[UUID, str] = {}
        self.called: dict[str, int] = {}

    def take(self, candidate: Candidate) -> bool:
        """Whether the event may run: then it counts from now on. Who has waited for longer goes first."""
        lines = self._lines.get(candidate.event_id, ())
        for line, _ in lines:
            is_first = candidate.due_at <= self._first.get(line, candidate.due_at)
            if self._left[line] > 0 and is_first:
                continue
            if self._left[line] > 0:
                self.called[line] = self._left[line]
            self._waiting[candidate.event_id] = line
            return False
        for line, limit in lines:
            self._left[line] -= 1
            self._taken[line] = self._taken.get(line, 0) + 1
            if isinstance(limit, Concurrency):
                self.held[candidate.event_id] = line
        return True

    def close(self) -> Mapping[str, float]:
        """Write down who waits and which starts are taken; for rates with nothing left, in how many seconds there is."""
        aside.set_aside(self._session, self._waiting)
        wakes: dict[str, float] = {}
        for line, limit in self._by_line.items():
            if not isinstance(limit, Rate):
                continue
            window = limit.per + limit.slack_seconds
            if count := self._taken.get(line):
                limits.take_starts(self._session, line, count, most=limit.count, seconds=window)
            if self._left[line] <= 0:
                wakes[line] = self._starts[line].seconds or window
        return wakes


def _of(by_line: Mapping[str, Concurrency | Rate], kind: type[Concurrency | Rate]) -> list[str]:
    return [line for line, limit in by_line.items() if isinstance(limit, kind)]
