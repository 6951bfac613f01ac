"""Testing handlers with nothing but PostgreSQL, and those with ``transactional=False`` with nothing at all.

::

    def test_charges_once(session):
        done = run(charge, OrderPlaced(order_id="1", amount_cents=4200), session=session)
        assert done.result == {"charged": 4200}
        assert done.progress == [(0.1, "charging")]
        assert [(each.type, each.data) for each in done.emitted] == [("com.acme.receipt.requested", {"order": "1"})]

    def test_waits_for_the_bank(bank_is_away):
        tried = attempt(transfer, Transfer(iban="…"), number=2)  # declared with transactional=False
        assert (tried.state, tried.error.type, tried.retry_in_seconds) == ("failed", "bank_away", 60)

A handler is called as it is declared with ``handlers.on``, and within what its collection puts around it. A function that is
not declared is taken for a transactional handler. Timeouts are not enforced. Order is Holdfast's part: a test can only see
that a handler asks for it (``handlers.find(type).is_ordered``). So are limits, priorities and pools: ``limit_key`` and
``rate_key`` say which events count together, ``queued`` who takes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from holdfast.domain.transitions import AttemptError
from holdfast.processor.attempt.failures import HandlerFailed
from holdfast.processor.handlers.outcomes import failure
from holdfast.processor.testing.limits import Queued, limit_key, queued, rate_key
from holdfast.processor.testing.sample import Emitted, EmittedGroup
from holdfast.processor.testing.trial import Cancelled, Case, Subject
from holdfast.runtime.ids import uuid7
from holdfast.storage import Session
from holdfast.storage.contents import table_contents

__all__ = [
    "Attempted", "Emitted", "EmittedGroup", "Queued", "Run", "assert_idempotent", "attempt", "limit_key", "queued",
    "rate_key", "run",
]  # fmt: skip

__tracebackhide__ = True


@dataclass(frozen=True, slots=True)
class Run:
    """What a handler did.

    ``progress`` has ``(fraction, message)`` of each report, ``emitted`` the events that it made, and ``groups`` those of some
    of them. ``steps`` has the results of the steps that this call did, by name, and a ``timedelta`` for each sleep.
    """

    result: Any
    progress: list[tuple[float, str | None]]
    emitted: list[Emitted] = field(default_factory=list)
    groups: list[EmittedGroup] = field(default_factory=list)
    steps: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attempted:
    """What became of an event by one attempt at it.

    Attributes:
        state: ``"processed"``; ``"failed"``: it is tried again; ``"dead"``; ``"queued"``: its handler put it off.
        result: what is stored of a processed one.
        progress: ``(fraction, message)`` of each report.
        emitted: the events that a processed one made, in their order; ``groups`` of some of them.
        steps: results of the steps that it did itself, by name; stored whatever became of the attempt.
        error: what is recorded of one that is not: ``type``, ``message``, ``reason`` (which live clients see), ``traceback``.
        retry_in_seconds: the wait before the next attempt: of a failed one with half of the jitter that it may have, of one
            that was put off what its handler said.
    """

    state: str
    result: Any = None
    progress: list[tuple[float, str | None]] = field(default_factory=list)
    emitted: list[Emitted] = field(default_factory=list)
    groups: list[EmittedGroup] = field(default_factory=list)
    steps: dict[str, Any] = field(default_factory=dict)
    error: AttemptError | None = None
    retry_in_seconds: float | None = None


def run(
    handler: Subject,
    payload: Any,
    *,
    session: Session | None = None,
    name: str | None = None,
    attempt: int = 1,
    event_id: UUID | None = None,
    cancelled: Cancelled = False,
    steps: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> Run:
    """Call a handler as an attempt would, in the transaction of ``session``, which stays open. What it raises is passed on.

    Args:
        handler: the function, or what ``handlers.find(type)`` returns: then with what is around including collections too.
        payload: the model, or data as a producer would send it, which is checked against the model.
        session: for transactional handlers; others neither need nor get one.
        name: of the declaration, for a function that has several; of the handler, for one that has none.
        attempt: ``ctx.attempt``.
        event_id: ``ctx.event.id``; a new one unless given.
        cancelled: what ``ctx.cancelled`` shows; a function is asked each time.
        steps: what attempts before have stored: results by the names of steps, and a ``timedelta`` for a sleep that is over.
            Other sleeps of the handler are over at once.
        attributes: the event's (``type``, ``source``, ``subject``, ``audience``, ``time``, …).

    Every report of progress is returned, those too that would follow one another too fast to be told.

    Raises:
        pydantic.ValidationError: the data does not fit the model; the event would be dead (``invalid_data``).
        holdfast.processor.handlers.outcomes.InvalidResult: the result could not be stored; the event would be dead.
        ConfigurationError: a transactional handler without a session, a name that is not declared, or no handler.
    """
    case = Case(handler, payload, session, name, attempt, event_id, cancelled, attributes, steps)
    case.handler.payload.validate_python(case.lease.event.data)
    try:
        result = case.call()
    except HandlerFailed as exc:
        raise exc.error from exc.error.__cause__
    if session is not None:
        session.expire_all()  # objects that the test has loaded: statements may have changed their rows
    return Run(result, case.progress, *case.emitted(), steps=case.notebook.kept)


def attempt(
    handler: Subject,
    payload: Any,
    *,
    session: Session | None = None,
    name: str | None = None,
    number: int = 1,
    event_id: UUID | None = None,
    cancelled: Cancelled = False,
    steps: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> Attempted:
    """What becomes of an event by its attempt ``number``: processed, tried again and when, or dead.

    Takes what :func:`run` takes. Effects of an attempt that has failed are rolled back, to a savepoint in the transaction of
    ``session``. A handler that ended the transaction itself has ended that of the test: it begins anew.

    Raises:
        ConfigurationError: as :func:`run`.
    """
    case = Case(handler, payload, session, name, number, event_id, cancelled, attributes, steps)
    try:
        result = case.call_in_savepoint()
    except HandlerFailed as exc:
        end = failure(exc.error, case.lease, case.handler, draw=0.5, duration_ms=0, report=exc.report)
        return Attempted(
            end.to_state.value,
            progress=case.progress,
            error=end.error,
            retry_in_seconds=end.delay_seconds,
            steps=case.notebook.kept,
        )
    return Attempted("processed", result, case.progress, *case.emitted(), steps=case.notebook.kept)


def assert_idempotent(handler: Subject, payload: Any, *, session: Session, **options: Any) -> Run:
    """Run a handler twice for one event and compare the whole database; returns the first run.

    For handlers whose effects leave the transaction, or whose rows are also written from elsewhere. Handlers that only use
    ``ctx.session`` need not pass: Holdfast applies their effects once. ``options`` are those of :func:`run`.

    Raises:
        AssertionError: the second run changed a table; the message names it.
    """
    event_id = uuid7()
    first = run(handler, payload, session=session, event_id=event_id, **options)
    before = table_contents(session)
    run(handler, payload, session=session, event_id=event_id, attempt=2, **options)
    after = table_contents(session)
    changed = sorted(table for table in before.keys() | after.keys() if before.get(table) != after.get(table))
    if changed:
        raise AssertionError(f"the second run changed {', '.join(changed)}")
    return first
