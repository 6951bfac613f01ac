"""A handler's effects: the transaction that they belong to, from the handler's first statement to the settle."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from holdfast.domain.errors import EffectsLost
from holdfast.domain.event import Lease
from holdfast.domain.transitions import Completion, settle
from holdfast.processor.attempt.heartbeat import Running
from holdfast.processor.handlers.outcomes import TransactionAborted, TransactionEnded
from holdfast.processor.handlers.reports import Report
from holdfast.processor.handlers.steps import Steps
from holdfast.runtime.tracebacks import error_text, error_type
from holdfast.storage import Session
from holdfast.storage.backend import Backend
from holdfast.storage.held import current_transaction, settle_held
from holdfast.storage.kept import kept_open
from holdfast.storage.lending import Lent
from holdfast.storage.settling import Moved, lock_windows, record_emitted
from holdfast.storage.watching import Tell, watching

__all__ = [
    "ENDED",
    "Effects",
    "SharedEffects",
    "aborted",
    "check_held",
    "ended_before",
    "settle_effects",
]

ENDED = (
    "the handler ended the transaction that its effects belong to (COMMIT, ROLLBACK or the driver's own methods), so some of"
    " them may be in the database already: look before you replay the event. Use ctx.session.begin_nested() for work that"
    " may fail in part, and transactional=False with a connection of your own for work that has to commit by itself"
)

ABORTED = (
    "a statement failed and the handler went on, so nothing of its transaction can be committed; put a statement that may"
    " fail in 'with ctx.session.begin_nested():', or let its error out"
)


class Effects:
    """The session of an attempt and the connection under it, which a handler may have or not.

    Attributes:
        session: ``None`` while there is none.
        lent: its connection, or ``None``.
        backend: the connection, as other threads may act on it, or ``None``.
        on_open: told of the backend of a session that is opened later, in the handler's thread.
        tell: told of the handler's statements; ``None`` where nobody asks.
    """

    def __init__(
        self, session: Session | None = None, lent: Lent | None = None, backend: Backend | None = None
    ) -> None:
        self.session = session
        self.lent = lent
        self.backend = backend
        self.on_open: Callable[[Backend], object] = lambda _: None
        self.tell: Tell | None = None
        self._guard = ExitStack()

    @property
    def open(self) -> Callable[[], Session] | None:
        """What ``ctx.session`` asks; ``None`` for a handler that gets no session."""
        session = self.session
        return None if session is None else lambda: session

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Within the block a session cannot end its transaction; what is pending is written at the end.

        A handler that commits by itself would keep its effects when it fails afterwards, and apply them again in the next
        attempt. ``begin_nested()`` (a savepoint) stays, for work that may fail in part.
        """
        with self._guard:
            if self.session is not None:
                self._keep(self.session)
            yield
            if self.session is not None:
                self.session.flush()

    def _keep(self, session: Session) -> None:
        self._guard.enter_context(kept_open(session))
        self._guard.enter_context(watching(session, self.tell))

    def check(self, raised: BaseException | None = None) -> None:
        """Raise what kept the transaction from beginning, or ended the attempt at a step, whatever the handler made of it.

        ``raised`` is what came out of the handler, if anything did.
        """

    def steps(self, running: Running) -> Steps | None:  # noqa: ARG002
        """What ``ctx.step`` asks; ``None`` for a handler that has no steps."""
        return None


class SharedEffects(Effects):
    """The session of one event of a batch, which is guarded for all of them."""

    @contextmanager
    def guarded(self) -> Iterator[None]:
        if self.session is None:
            yield
            return
        with watching(self.session, self.tell):
            yield
            self.session.flush()


def aborted(exc: BaseException, lent: Lent | None) -> BaseException:
    """The error to report instead of one that only says that there was an error before: with that first one as its cause."""
    cause = lent.hidden_by(exc) if lent is not None else None
    if cause is None:
        return exc
    return TransactionAborted(f"{ABORTED} ({error_type(cause)}: {error_text(cause)})", cause)


def settle_effects(session: Session, lease: Lease, completion: Completion, lent: Lent) -> Moved:
    """Settle the event in the transaction of its effects, with what its handler emitted.

    The answer has no updates where the lease was lost.

    Raises:
        IdentityTaken: an emitted event has the identity of another one.
        TransactionAborted, TransactionEnded: what the handler did to the transaction.
        AlreadyProcessed: the event was settled before.
    """
    try:
        transition = settle(lease.event.id, lease.token, completion, transaction=lent.transaction)
        lock_windows(session, [transition])
        updates = settle_held(session, transition, lent)
        moved = Moved(updates, record_emitted(session, [transition], updates))
    except EffectsLost as exc:
        raise TransactionEnded(ENDED) from exc.__cause__
    except Exception as exc:
        error = aborted(exc, lent)
        if error is exc:
            raise
        raise error  # noqa: B904 (its cause is set)
    lent.renew_at_commit()
    return moved


def check_held(session: Session, lent: Lent) -> None:
    """Look for what settling would find of the transaction, where nothing is settled.

    Raises:
        TransactionEnded: the handler ended it.
        sqlalchemy.exc.SQLAlchemyError: a statement has failed in it.
    """
    if current_transaction(session) != lent.transaction:
        raise TransactionEnded(ENDED)


def ended_before(report: Report) -> Report:
    """The report of an error that a handler raised after it had ended its transaction."""
    message = f"{ENDED}. Then it raised {report.type}: {report.message}"
    return replace(report, type=TransactionEnded.code, message=message, reason=ENDED)
