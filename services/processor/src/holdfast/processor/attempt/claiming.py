"""Taking events, in their turn and only those that this processor serves."""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID

from holdfast.domain.errors import DatabaseUnavailable, LaneTaken, StatementTooSlow
from holdfast.domain.event import Doorbell, Lease
from holdfast.domain.transitions import await_handler
from holdfast.domain.update import Update
from holdfast.processor.attempt.admission import Admission
from holdfast.processor.handlers.registry import Handlers
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log
from holdfast.storage import (
    Session,
    aside,
    cancels,
    candidates,
    claims,
    lanes,
    leases,
    lifecycle,
    routing,
    served,
    sweeps,
)
from holdfast.storage.candidates import Candidate, Kind
from holdfast.storage.claims import NO_LIMITS, Limits
from holdfast.storage.database import Database

__all__ = ["Claimer", "Verdict", "Wake", "without_handler"]

log = logging.get(__name__)

REPORT_SECONDS = 5.0
"""An event without handler waits for this long before clients read so: beside a processor that serves it, it is gone."""

LOOK_AGAIN_SECONDS = 30.0
"""Between two looks at an event that a busy processor serves."""

MAX_LOGGED_TYPES = 1000
"""Types without handler that are logged, each once: types are made by strangers."""


NOBODY: Mapping[str, int] = {}

Wake = Callable[[Doorbell], None]
"""Rings for an event whose turn it is. May fail to reach anybody."""


class Verdict(Enum):
    """What becomes of an event whose type this processor does not serve."""

    WAIT = "wait"
    REPORT = "report"
    GIVE_UP = "give up"


def without_handler(candidate: Candidate, *, limit_seconds: float) -> Verdict:
    """Not to know a type is no verdict on its events: they wait, clients are told, and after the limit they are given up.

    One that nobody has let wait yet has that chance first, however old it is: the processor that serves it may just start.
    """
    if limit_seconds == 0:
        return Verdict.GIVE_UP
    if not candidate.is_unserved:
        return Verdict.WAIT
    if candidate.waited_seconds >= limit_seconds:
        return Verdict.GIVE_UP
    is_due = candidate.waited_seconds >= REPORT_SECONDS and not candidate.is_reported
    return Verdict.REPORT if is_due else Verdict.WAIT


class Claimer:
    """Claims for one process, from any number of threads.

    Args:
        database: whose commits need not be durable.
        publish: takes updates after their commit.
        wake: rings for an event whose turn it is.
        pools: which it serves, see ``Admission``.
        is_async_full: whether events of ``async def`` handlers are to be left where they are, for others or for later.
    """

    def __init__(
        self,
        handlers: Handlers,
        database: Database,
        *,
        owner: str,
        lease_seconds: float,
        no_handler_seconds: float,
        publish: Callable[[list[Update]], object],
        wake: Callable[[Doorbell], None],
        pools: Collection[str] = ("",),
        is_async_full: Callable[[], bool] = lambda: False,
    ) -> None:
        self._handlers = handlers
        self._admission = Admission(handlers, pools)
        self._judging = threading.Lock()
        """One look or search at a time: they share whose turn it is."""
        self._after_tenant = ""
        self._database = database
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._no_handler_seconds = no_handler_seconds
        self._publish = publish
        self._wake = wake
        self._is_async_full = is_async_full
        self._logged_types: set[str] = set()

    def claim(self, doorbells: Sequence[Doorbell]) -> list[Lease]:
        """The events of doorbells that are due, whose turn it is, and of a type that is served here; in one transaction.

        Those that do not fit, and lanes that somebody else has just taken, take no other along.

        Raises:
            DatabaseUnavailable, StatementTooSlow: nothing was claimed; or it was, and the leases will expire.
        """
        if self._admission.has_to_look:
            return self._claim_after_a_look(doorbells)
        try:
            return self._claim_together(doorbells)
        except _Misfit as exc:
            # Rare: the first events of a type that became ordered, those without handler, or the first ones of a pause.
            others = [each for each in doorbells if each.event_id not in exc.event_ids]
            misfits = {each.event_id: each for each in doorbells if each.event_id in exc.event_ids}
            looked = self._claim_after_a_look(list(misfits.values()))
            return [*(self.claim(others) if others else []), *looked]
        except LaneTaken:
            half = len(doorbells) // 2
            return [*self.claim(doorbells[:half]), *self.claim(doorbells[half:])] if half else []

    def next_wake(self) -> float | None:
        """When to search for events that wait for a start of a rate, in seconds of the monotonic clock."""
        return self._admission.next_wake()

    def extend(self, held: list[Lease]) -> dict[UUID, bool]:
        """Keep leases; see ``storage.leases.extend``.

        Raises:
            DatabaseUnavailable, StatementTooSlow: not known.
        """
        with self._database.transaction() as session:
            return leases.extend(session, held)

    def cancelled(self, event_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Which of these events are to be cancelled, and who asked for it.

        Raises:
            DatabaseUnavailable, StatementTooSlow: not known.
        """
        return cancels.requested(self._database, event_ids)

    def claim_due(
        self, limit: int, *, is_suspect: bool, overdue_seconds: float, least_priority: int = 0
    ) -> list[Lease]:
        """Up to ``limit`` events that have been due for a while, and events that waited for a handler that is here.

        ``least_priority``: of these priorities alone, and not out of lines.

        Raises:
            DatabaseUnavailable, StatementTooSlow: as :meth:`claim`.
        """
        judged, began = _Judged(), time.monotonic()
        try:
            with self._judging, self._database.transaction() as session:
                self._admission.refresh(session)
                claimed = claims.claim_due(
                    session, owner=self._owner, lease_seconds=self._lease_seconds, limit=limit, is_suspect=is_suspect,
                    overdue_seconds=overdue_seconds,
                    unserved_types=[] if least_priority else self._served_of_the_waiting(session),
                    lines={} if least_priority else self._admission.open_lines(session, limit),
                    pools=self._admission.pools,
                    kinds=None if is_suspect else self._kinds(session, least_priority),
                    sort=lambda session, met: self._sort(session, met, judged, keeps_lines=True),
                    admit=lambda session, met, count: self._admit(session, met, count, judged),
                )  # fmt: skip
        except LaneTaken:
            return []  # the next search finds the others
        return self._told(claimed, judged, began)

    def is_any_due(self, *, is_suspect: bool, overdue_seconds: float) -> bool:
        """Whether :meth:`claim_due` may find an event.

        Raises:
            DatabaseUnavailable, StatementTooSlow: not known.
        """
        return sweeps.is_any_claimable(self._database, is_suspect=is_suspect, overdue_seconds=overdue_seconds)

    def declare(self) -> None:
        """Let ordered types be known to recording, and those that are ordered no longer be forgotten.

        Raises:
            DatabaseUnavailable: ordered types are then declared as they are met; those that are not ordered any more keep
                their order until the next start.
        """
        with self._database.transaction() as session:
            served.reconcile(session, self._handlers.exact_types(), self._handlers.is_ordered)
            routing.declare_routes(session, self._handlers.routes())

    def note_served(self) -> None:
        """Say which of the types that events wait for are served here, however busy this process is."""
        with self._database.transaction() as session:
            served.note_served(session, self._served_of_the_waiting(session))

    def call_next(self, of_lanes: Iterable[UUID], of_lines: Mapping[str, int] = NOBODY) -> None:
        """Ring for the next event of each lane, if it is due, and for so many of each line.

        Where PostgreSQL is away a poll finds them, later.
        """
        ordered = sorted(of_lanes)
        if not ordered and not of_lines:
            return
        try:
            with self._database.transaction() as session:
                called = [lanes.promote(session, lane) for lane in ordered]
                called += aside.promote(session, of_lines)
        except (DatabaseUnavailable, StatementTooSlow):
            return
        for doorbell in called:
            if doorbell is not None:
                self._wake(doorbell)

    def _claim_together(self, doorbells: Sequence[Doorbell]) -> list[Lease]:
        with self._database.transaction() as session:
            claimed = self._claim(session, doorbells)
            self._check(session, claimed)
            found = {lease.event.id for lease, _ in claimed}
            missed = [each.event_id for each in doorbells if each.event_id not in found]
            waiting = lanes.wait_for_turn(session, missed) if missed else {}
        self._publish([update for _, update in claimed])
        # Those that went before may have ended while these were let wait for them.
        self.call_next(set(waiting.values()))
        return [lease for lease, _ in claimed]

    def _claim_after_a_look(self, doorbells: Sequence[Doorbell]) -> list[Lease]:
        judged, began = _Judged(), time.monotonic()
        try:
            with self._judging, self._database.transaction() as session:
                self._admission.refresh(session)
                chosen = self._sort(session, candidates.look(session, doorbells), judged)
                in_lanes = [each.event_id for each in chosen if each.subject is not None]
                waiting = lanes.wait_for_turn(session, in_lanes)
                free = [each for each in chosen if each.event_id not in waiting]
                admitted, held = self._admit(session, free, len(free), judged)
                claimed = self._claim(session, [each.doorbell for each in admitted], held)
        except LaneTaken:
            half = len(doorbells) // 2
            return [*self.claim(doorbells[:half]), *self.claim(doorbells[half:])] if half else []
        judged.lanes |= set(waiting.values())
        return self._told(claimed, judged, began)

    def _told(self, claimed: list[tuple[Lease, Update]], judged: "_Judged", began: float) -> list[Lease]:
        """After the commit: what was claimed, as it is to be run."""
        self._publish([*judged.reported, *(update for _, update in claimed)])
        for doorbell in judged.elsewhere:
            self._wake(doorbell)
        # Those that went before may have ended while these were let wait for them.
        self.call_next(judged.lanes, judged.called)
        return self._admission.started_by((lease for lease, _ in claimed), began)

    def _claim(
        self, session: Session, doorbells: Sequence[Doorbell], held: Limits = NO_LIMITS
    ) -> list[tuple[Lease, Update]]:
        return claims.claim_events(
            session, doorbells, owner=self._owner, lease_seconds=self._lease_seconds, limits=held
        )

    def _kinds(self, session: Session, least_priority: int) -> list[Kind]:
        """Where to look now; where there is too much for one search the next one begins behind."""
        kinds = candidates.kinds_of(session, self._admission.pools, after=self._after_tenant)
        if least_priority:
            return [each for each in kinds if each.priority >= least_priority]
        self._after_tenant = kinds[-1].tenant if len(kinds) >= candidates.MOST_KINDS else ""
        return kinds

    def _admit(
        self, session: Session, met: Sequence[Candidate], count: int, judged: "_Judged"
    ) -> tuple[Sequence[Candidate], Limits]:
        chosen, held, called = self._admission.admit(session, met, count)
        judged.called |= called
        return chosen, held

    def _check(self, session: Session, claimed: list[tuple[Lease, Update]]) -> None:
        """Raise, so that the claim is rolled back, where it was not this processor's to make in this way."""
        if claimed:
            self._admission.refresh(session, claimed[0][0].flow_version)
        if misfits := {lease.event.id for lease, _ in claimed if self._is_misfit(lease)}:
            raise _Misfit(misfits)

    def _is_misfit(self, lease: Lease) -> bool:
        handler = self._handlers.find(lease.event.route)
        if handler is None:
            return self._no_handler_seconds > 0
        if (handler.is_async and self._is_async_full()) or self._admission.is_misfit(lease, handler):
            return True
        return handler.is_ordered and lease.event.subject is not None and lease.lane is None

    def _served_of_the_waiting(self, session: Session) -> list[str]:
        return [each for each in served.unserved_types(session) if self._handlers.find(each) is not None]

    def _sort(
        self, session: Session, met: Sequence[Candidate], judged: "_Judged", *, keeps_lines: bool = False
    ) -> list[Candidate]:
        """Those to claim. Ordered ones are put into their lanes; those that may not run here or now are let wait.

        ``keeps_lines``: those that wait in a line and are not served here are left there, to whom serves them.
        """
        chosen: list[Candidate] = []
        for each in met:
            handler = self._handlers.find(each.type)
            if handler is not None and handler.is_async and self._is_async_full():
                continue  # left as it is: a poll finds it once there is a place
            if handler is None and keeps_lines and each.waits_in is not None:
                continue
            placed = self._admission.is_placed(session, each, handler)
            if isinstance(placed, Doorbell):
                judged.elsewhere.append(placed)
            if placed or (handler is None and not self._is_given_up(session, each, judged.reported)):
                continue
            if handler is not None and handler.is_ordered and each.subject is not None and not each.has_lane:
                served.declare_ordered(session, lanes.assign(session, each.event_id, self._is_ordered_here))
                if not lanes.is_in_line(session, each.event_id):
                    continue  # an earlier one is just being looked at; the next poll finds both
            chosen.append(each)
        return chosen

    def _is_ordered_here(self, event_type: str) -> bool:
        return bool(self._handlers.is_ordered(event_type))

    def _is_given_up(self, session: Session, candidate: Candidate, reported: list[Update]) -> bool:
        verdict = without_handler(candidate, limit_seconds=self._no_handler_seconds)
        if verdict is Verdict.GIVE_UP and self._no_handler_seconds == 0:
            return True
        if verdict is not Verdict.WAIT and served.is_served_elsewhere(session, candidate.type):
            verdict = Verdict.WAIT
        if verdict is Verdict.REPORT:
            left = max(0.0, self._no_handler_seconds - candidate.waited_seconds)
            move = await_handler(candidate.event_id, candidate.version, delay_seconds=left)
            reported += lifecycle.apply(session, [move], worker=self._owner)
        elif verdict is Verdict.WAIT:
            self._let_wait(session, candidate)
        return verdict is Verdict.GIVE_UP

    def _let_wait(self, session: Session, candidate: Candidate) -> None:
        seconds = LOOK_AGAIN_SECONDS if candidate.is_unserved else min(REPORT_SECONDS, self._no_handler_seconds)
        served.wait_for_handler(session, [candidate.event_id], look_again_seconds=seconds)
        if candidate.type not in self._logged_types and len(self._logged_types) < MAX_LOGGED_TYPES:
            self._logged_types.add(candidate.type)
            log.warning(Log.WAITS_FOR_HANDLER, event_type=candidate.type)


@dataclass(slots=True)
class _Judged:
    """What a look at events comes to, for after its commit.

    ``called``: how many of which lines are next; ``elsewhere``: events of other pools.
    """

    reported: list[Update] = field(default_factory=list)
    lanes: set[UUID] = field(default_factory=set)
    called: dict[str, int] = field(default_factory=dict)
    elsewhere: list[Doorbell] = field(default_factory=list)


class _Misfit(Exception):
    """Some of what was claimed is not for this processor, or not in this way: nothing is committed."""

    def __init__(self, event_ids: set[UUID]) -> None:
        super().__init__()
        self.event_ids = event_ids
