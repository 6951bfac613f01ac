"""Handlers that end the transaction they run in, or leave something in its database session: strangers' code does."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from holdfast.local.servers import Postgres
from holdfast.processor import Backoff, Context, Handlers
from holdfast.storage.database import Database
from holdfast.storage.migrate import upgrade

MakeExecutor = Callable[..., Any]
Handle = Callable[..., UUID]
Ending = Callable[[Context], Any]


def leave_effect(ctx: Context) -> None:
    ctx.session.execute(text("INSERT INTO effect VALUES (:id, '')"), {"id": ctx.event.id})


def driver(ctx: Context) -> Any:
    """psycopg2's own connection, past SQLAlchemy."""
    return ctx.session.connection().connection.dbapi_connection


def send(ctx: Context, statement: str) -> None:
    """Through psycopg2's own cursor."""
    with driver(ctx).cursor() as cursor:
        cursor.execute(statement)


@pytest.fixture
def handle(stored: Any, executor: MakeExecutor) -> Handle:
    """Execute one event with a function as its handler, as often as it is due."""

    def run(function: Callable[..., Any], attempts: int = 1, **options: Any) -> UUID:
        handlers = Handlers()
        handlers.on("test.done", name="handler", retry=Backoff(first=0, cap=0, attempts=3), **options)(function)
        event_id: UUID = stored.record("test.done")
        made = executor(handlers)
        for _ in range(attempts):
            stored.make_due()
            made.execute(event_id, stored.row(event_id).version)
        return event_id

    return run


def begin_anew(ctx: Context) -> None:
    send(ctx, "ROLLBACK")
    send(ctx, "BEGIN")


def chain(ctx: Context) -> None:
    send(ctx, "ROLLBACK AND CHAIN")


def switch_autocommit_on(ctx: Context) -> None:
    driver(ctx).rollback()
    driver(ctx).autocommit = True


def give_connection_back(ctx: Context) -> None:
    ctx.session.connection().connection.close()


UNDOING: list[Ending] = [
    lambda ctx: driver(ctx).rollback(),
    lambda ctx: ctx.session.connection().connection.rollback(),
    lambda ctx: ctx.session.connection().rollback(),
    lambda ctx: ctx.session.connection().close(),
    lambda ctx: ctx.session.get_transaction().rollback(),  # type: ignore[union-attr]
    lambda ctx: Session.rollback(ctx.session),
    lambda ctx: Session.close(ctx.session),
    lambda ctx: send(ctx, "ROLLBACK"),
    lambda ctx: send(ctx, "SELECT 1; ABORT"),
    lambda ctx: ctx.session.execute(text("/* by and by */ ROLLBACK")),
    chain,
    begin_anew,
    switch_autocommit_on,
    give_connection_back,
]


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # SQLAlchemy warns where it notices by itself
@pytest.mark.parametrize("end", UNDOING)
def test_a_handler_that_undoes_its_transaction_is_never_processed_without_effects(
    stored: Any, handle: Handle, end: Ending
) -> None:
    def undo(data: Any, ctx: Context) -> str:  # noqa: ARG001
        leave_effect(ctx)
        end(ctx)
        return "all is well"

    event_id = handle(undo, attempts=3)

    error = stored.error(event_id)
    assert (stored.state(event_id), stored.effects(event_id), stored.log(event_id)) == ("dead", 0, [])
    assert error.error_type == "transaction_ended"
    assert "begin_nested" in error.message
    assert len(stored.errors(event_id)) == 1


COMMITTING: list[Ending] = [
    lambda ctx: driver(ctx).commit(),
    lambda ctx: ctx.session.connection().connection.commit(),
    lambda ctx: send(ctx, "COMMIT"),
    lambda ctx: send(ctx, "END; BEGIN"),
    lambda ctx: send(ctx, "COMMIT AND CHAIN"),
    lambda ctx: ctx.session.execute(text("-- by the way\nCOMMIT")),
]


@pytest.mark.parametrize("is_raising", [False, True])
@pytest.mark.parametrize("end", COMMITTING)
def test_a_handler_that_commits_has_its_effects_once_and_is_a_dead_letter(
    stored: Any, handle: Handle, end: Ending, is_raising: bool
) -> None:
    def commit(data: Any, ctx: Context) -> None:  # noqa: ARG001
        leave_effect(ctx)
        end(ctx)
        if is_raising and ctx.attempt == 1:
            raise ConnectionError("the other side is away")

    event_id = handle(commit, attempts=3)

    error = stored.error(event_id)
    assert (stored.state(event_id), stored.effects(event_id)) == ("dead", 1)
    assert error.error_type == "transaction_ended"
    assert "look before you replay" in error.message
    assert ("the other side is away" in error.message) == is_raising


REFUSED: list[tuple[Ending, str]] = [
    (lambda ctx: ctx.session.execute(text("COMMIT")), "does not commit"),
    (lambda ctx: ctx.session.execute(text(" end transaction;")), "does not commit"),
    (lambda ctx: ctx.session.execute(text("Rollback and chain")), "does not roll back"),
    (lambda ctx: ctx.session.execute(text("ABORT")), "does not roll back"),
    (lambda ctx: ctx.session.execute(text("BEGIN")), "in a transaction already"),
    (lambda ctx: ctx.session.execute(text("START TRANSACTION READ WRITE")), "in a transaction already"),
    (lambda ctx: ctx.session.execute(text("PREPARE TRANSACTION 'x'")), "does not commit"),
    (lambda ctx: ctx.session.connection().exec_driver_sql("COMMIT"), "does not commit"),
    (lambda ctx: ctx.session.connection().commit(), "does not commit"),
    (lambda ctx: ctx.session.commit(), "does not commit"),
    (lambda ctx: ctx.session.rollback(), "does not roll back"),
    (lambda ctx: ctx.session.invalidate(), "does not close"),
    (lambda ctx: ctx.session.reset(), "does not close"),
    (lambda ctx: ctx.session.prepare(), "does not commit"),
]


@pytest.mark.parametrize(("end", "told"), REFUSED)
def test_a_session_refuses_to_end_its_transaction_where_it_is_asked_to(
    stored: Any, handle: Handle, end: Ending, told: str
) -> None:
    def refused(data: Any, ctx: Context) -> None:  # noqa: ARG001
        leave_effect(ctx)
        end(ctx)

    event_id = handle(refused)

    error = stored.error(event_id)
    assert (stored.state(event_id), stored.effects(event_id)) == ("failed", 0)
    assert (error.error_type, told in error.message) == ("RuntimeError", True)
    assert "in refused" in error.traceback, "the author's own line"


ALLOWED: list[Ending] = [
    lambda ctx: ctx.session.execute(text("SAVEPOINT a")),
    lambda ctx: [ctx.session.execute(text(each)) for each in ("SAVEPOINT a", "ROLLBACK TO a", "RELEASE a")],
    lambda ctx: [ctx.session.execute(text(each)) for each in ("SAVEPOINT a", "ROLLBACK WORK TO SAVEPOINT a")],
    lambda ctx: ctx.session.execute(text("RESET ALL")),
    lambda ctx: ctx.session.execute(text("SET CONSTRAINTS ALL IMMEDIATE")),
    lambda ctx: ctx.session.begin_nested().commit(),
    lambda ctx: ctx.session.begin_nested().rollback(),
]


@pytest.mark.parametrize("use", ALLOWED)
def test_savepoints_and_settings_of_its_own_do_a_handler_no_harm(stored: Any, handle: Handle, use: Ending) -> None:
    def well_behaved(data: Any, ctx: Context) -> None:  # noqa: ARG001
        leave_effect(ctx)
        use(ctx)

    event_id = handle(well_behaved)

    assert (stored.state(event_id), stored.effects(event_id)) == ("processed", 1)


def test_a_second_session_on_the_same_connection_cannot_undo_effects_unseen(stored: Any, handle: Handle) -> None:
    def second(data: Any, ctx: Context) -> None:  # noqa: ARG001
        leave_effect(ctx)
        with contextlib.suppress(Exception), Session(bind=ctx.session.connection()) as other:
            other.execute(text("SELECT 1"))
            other.rollback()

    event_id = handle(second, attempts=3)

    assert stored.state(event_id) == "dead"
    assert stored.effects(event_id) == 0


def test_a_swallowed_error_of_a_statement_is_the_cause_that_is_reported(stored: Any, handle: Handle) -> None:
    def swallow(data: Any, ctx: Context) -> None:  # noqa: ARG001
        leave_effect(ctx)
        with contextlib.suppress(Exception):
            ctx.session.execute(text("SELECT missing_column FROM effect"))

    error = stored.error(handle(swallow))

    assert error.error_type == "transaction_aborted"
    assert "begin_nested" in error.message
    assert "missing_column" in error.message
    assert "in swallow" in error.traceback
    assert "UndefinedColumn" in error.traceback


def test_the_statement_after_a_swallowed_error_does_not_hide_it(stored: Any, handle: Handle) -> None:
    def swallow(data: Any, ctx: Context) -> None:  # noqa: ARG001
        for statement in ("SELECT missing_column FROM effect", "SELECT 1"):
            with contextlib.suppress(Exception):
                ctx.session.execute(text(statement))
        leave_effect(ctx)

    error = stored.error(handle(swallow))

    assert (error.error_type, "missing_column" in error.message) == ("transaction_aborted", True)


def test_an_error_that_a_savepoint_took_back_is_not_taken_for_the_cause(stored: Any, handle: Handle) -> None:
    def careful(data: Any, ctx: Context) -> None:  # noqa: ARG001
        with contextlib.suppress(Exception), ctx.session.begin_nested():
            ctx.session.execute(text("SELECT harmless FROM effect"))
        with contextlib.suppress(Exception):
            ctx.session.execute(text("SELECT harmful FROM effect"))

    error = stored.error(handle(careful))

    assert "harmful" in error.message
    assert "harmless" not in error.message


def test_swallowed_errors_at_two_places_have_two_fingerprints(stored: Any, handle: Handle) -> None:
    def here(data: Any, ctx: Context) -> None:  # noqa: ARG001
        with contextlib.suppress(Exception):
            ctx.session.execute(text("SELECT missing FROM effect"))

    def there(data: Any, ctx: Context) -> None:  # noqa: ARG001
        with contextlib.suppress(Exception):
            ctx.session.execute(text("SELECT missing FROM effect"))

    assert stored.error(handle(here)).fingerprint != stored.error(handle(there)).fingerprint


LEAVING: list[tuple[str, str]] = [
    ("SELECT set_config('app.tenant', 'acme', false)", "SELECT coalesce(current_setting('app.tenant', true), '')"),
    ("CREATE TEMP TABLE stage ON COMMIT PRESERVE ROWS AS SELECT 1 AS x", "SELECT coalesce(to_regclass('stage')::text, '')"),
    ("SET search_path = pg_catalog", "SELECT CASE WHEN current_setting('search_path') LIKE '%public%' THEN '' END"),
    ("SET ROLE pg_monitor", "SELECT CASE WHEN current_user = session_user THEN '' END"),
    ("SET TIME ZONE 'Asia/Tokyo'", "SELECT CASE WHEN current_setting('timezone') = 'UTC' THEN '' END"),
    ("SET statement_timeout = 0", "SELECT CASE WHEN current_setting('statement_timeout') <> '0' THEN '' END"),
    ("LISTEN stage", "SELECT coalesce(string_agg(c, ','), '') FROM pg_listening_channels() c"),
    ("PREPARE stage AS SELECT 1", "SELECT coalesce(string_agg(name, ','), '') FROM pg_prepared_statements"),
    ("DECLARE stage CURSOR WITH HOLD FOR SELECT 1", "SELECT coalesce(string_agg(name, ','), '') FROM pg_cursors"),
    ("SELECT pg_advisory_lock(7)", "SELECT coalesce(min(objid::text), '') FROM pg_locks WHERE locktype = 'advisory'"),
]  # fmt: skip


@pytest.mark.parametrize("is_failing", [False, True])
@pytest.mark.parametrize(("statement", "question"), LEAVING)
def test_what_a_handler_leaves_in_its_database_session_is_gone_for_the_next_one(
    stored: Any, executor: MakeExecutor, statement: str, question: str, is_failing: bool
) -> None:
    handlers, pids, seen = Handlers(), [], []

    @handlers.on("test.done", name="handler")
    def leave(data: Any, ctx: Context) -> None:  # noqa: ARG001
        pids.append(ctx.session.execute(text("SELECT pg_backend_pid()")).scalar_one())
        seen.append(ctx.session.execute(text(question)).scalar_one())
        ctx.session.execute(text(statement))
        if is_failing:
            raise ValueError("no")

    made = executor(handlers)
    for _ in range(2):
        made.execute(stored.record("test.done"), 1)

    assert seen == ["", ""]
    assert pids[0] == pids[1], "the session was renewed, not replaced"


def change_cursors(ctx: Context) -> None:
    from psycopg2.extras import DictCursor

    driver(ctx).cursor_factory = DictCursor


def switch_autocommit_off(ctx: Context) -> None:
    driver(ctx).rollback()
    driver(ctx).autocommit = False


CHANGING: list[Ending] = [
    switch_autocommit_on,
    switch_autocommit_off,
    lambda ctx: [driver(ctx).rollback(), driver(ctx).set_isolation_level(0)],
    change_cursors,
    lambda ctx: [driver(ctx).rollback(), driver(ctx).set_session(readonly=True, isolation_level="SERIALIZABLE")],
    lambda ctx: [driver(ctx).rollback(), driver(ctx).set_client_encoding("LATIN1")],
]


@pytest.mark.parametrize("change", CHANGING)
def test_what_a_handler_changes_in_its_driver_is_gone_for_the_next_one(
    stored: Any, executor: MakeExecutor, change: Ending
) -> None:
    handlers = Handlers()

    @handlers.on("test.change", name="change")
    def leave(data: Any, ctx: Context) -> None:  # noqa: ARG001
        change(ctx)

    @handlers.on("test.done", name="handler")
    def look(data: Any, ctx: Context) -> list[Any]:  # noqa: ARG001
        leave_effect(ctx)
        own = driver(ctx)
        isolation = ctx.session.execute(text("SHOW transaction_isolation")).scalar_one()
        return [own.autocommit, own.cursor_factory is None, own.encoding, isolation, own.readonly]

    made = executor(handlers)
    made.execute(stored.record("test.change"), 1)
    event_id = stored.record("test.done")
    made.execute(event_id, 1)

    assert stored.state(event_id) == "processed"
    assert stored.log(event_id)[0].result == [True, True, "UTF8", "read committed", None]


class TwoPhasePostgres(Postgres):
    """PostgreSQL that takes PREPARE TRANSACTION, which it does not unless told to."""

    def command(self) -> list[str]:
        return [*super().command(), "-c", "max_prepared_transactions=3"]


@pytest.fixture
def two_phase(tmp_path: Path) -> Iterator[Postgres]:
    server = TwoPhasePostgres(tmp_path / "postgres", is_durable=False)
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("is_raising", [False, True])
def test_a_transaction_that_a_handler_prepares_for_later_is_rolled_back(
    two_phase: Postgres, make_stored: Callable[[Database], Any], executor: MakeExecutor, is_raising: bool
) -> None:
    upgrade(two_phase.url())
    with contextlib.closing(Database(two_phase.url(), application_name="test")) as database:
        stored, handlers = make_stored(database), Handlers()

        @handlers.on("test.done", name="handler")
        def prepare(data: Any, ctx: Context) -> None:  # noqa: ARG001
            leave_effect(ctx)
            send(ctx, "PREPARE TRANSACTION 'it''s :later'")
            if is_raising:
                raise ConnectionError("the other side is away")

        event_id = stored.record("test.done")
        executor(handlers, database_url=two_phase.url(), statement_timeout_seconds=5).execute(event_id, 1)

        assert (stored.state(event_id), stored.effects(event_id)) == ("failed" if is_raising else "dead", 0)
        assert stored.rows("SELECT gid FROM pg_prepared_xacts") == []
