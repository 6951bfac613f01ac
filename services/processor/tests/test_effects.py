"""What a handler can and can not do to the transaction it runs in. The words "once in effect" hang on this."""

import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from holdfast.local.servers import free_port
from holdfast.processor import Context, Handlers

MakeExecutor = Callable[..., Any]


class Base(DeclarativeBase):
    pass


class Unique(Base):
    __tablename__ = "only_once"

    key: Mapped[int] = mapped_column(primary_key=True)


def leave_effect(ctx: Context) -> None:
    ctx.session.execute(text("INSERT INTO effect VALUES (:id, '')"), {"id": ctx.event.id})


@pytest.fixture
def handle(stored: Any, executor: MakeExecutor) -> Callable[[Callable[..., Any]], UUID]:
    """Execute one event with a function as its handler."""

    def run(function: Callable[..., Any]) -> UUID:
        handlers = Handlers()
        handlers.on("test.done", name="handler")(function)
        event_id: UUID = stored.record("test.done")
        executor(handlers).execute(event_id, 1)
        return event_id

    return run


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_a_handler_that_ends_the_transaction_has_failed_and_left_nothing(
    stored: Any, handle: Callable[..., UUID], ending: str
) -> None:
    def end(data: Any, ctx: Context) -> None:  # noqa: ARG001
        leave_effect(ctx)
        getattr(ctx.session, ending)()

    event_id = handle(end)

    assert (stored.state(event_id), stored.effects(event_id)) == ("failed", 0)
    assert stored.error(event_id).error_type == "RuntimeError"


def test_a_handler_that_insists_on_committing_still_commits_nothing(stored: Any, handle: Callable[..., UUID]) -> None:
    def insist(data: Any, ctx: Context) -> None:  # noqa: ARG001
        leave_effect(ctx)
        try:
            ctx.session.commit()
        except RuntimeError:
            ctx.session.close()
        raise ValueError("and then it fails")

    event_id = handle(insist)

    assert (stored.state(event_id), stored.effects(event_id)) == ("failed", 0)


def test_a_savepoint_is_there_for_work_that_may_fail(stored: Any, handle: Callable[..., UUID]) -> None:
    stored.run("CREATE TABLE only_once (key int PRIMARY KEY)")
    stored.run("INSERT INTO only_once VALUES (1)")

    def attempt(data: Any, ctx: Context) -> str:  # noqa: ARG001
        leave_effect(ctx)
        try:
            with ctx.session.begin_nested():
                ctx.session.add(Unique(key=1))
        except IntegrityError:
            return "it was there"
        return "it is new"

    event_id = handle(attempt)

    assert (stored.state(event_id), stored.effects(event_id)) == ("processed", 1)
    assert stored.log(event_id)[0].result == "it was there"


@pytest.mark.parametrize("is_flush", [True, False])
def test_a_handler_that_hides_a_database_error_is_not_processed_without_its_effects(
    stored: Any, handle: Callable[..., UUID], is_flush: bool
) -> None:
    stored.run("CREATE TABLE only_once (key int PRIMARY KEY)")
    stored.run("INSERT INTO only_once VALUES (1)")

    def hide(data: Any, ctx: Context) -> str:  # noqa: ARG001
        leave_effect(ctx)
        try:
            if is_flush:
                ctx.session.add(Unique(key=1))
                ctx.session.flush()
            else:
                ctx.session.execute(text("INSERT INTO only_once VALUES (1)"))
        except IntegrityError:
            pass
        return "all is well"

    event_id = handle(hide)

    assert (stored.state(event_id), stored.effects(event_id)) == ("failed", 0)


def test_rows_that_are_pending_at_the_end_are_written_and_their_errors_are_the_handlers(
    stored: Any, handle: Callable[..., UUID]
) -> None:
    stored.run("CREATE TABLE only_once (key int PRIMARY KEY)")

    def add(data: Any, ctx: Context) -> None:  # noqa: ARG001
        ctx.session.add(Unique(key=1))

    first, second = handle(add), handle(add)

    assert [stored.state(event_id) for event_id in (first, second)] == ["processed", "failed"]
    assert stored.error(second).error_type == "IntegrityError"


def test_a_constraint_checked_at_the_commit_fails_the_attempt(stored: Any, handle: Callable[..., UUID]) -> None:
    stored.run("CREATE TABLE only_once (key int, UNIQUE (key) DEFERRABLE INITIALLY DEFERRED)")
    stored.run("INSERT INTO only_once VALUES (1)")

    def defer(data: Any, ctx: Context) -> None:  # noqa: ARG001
        leave_effect(ctx)
        ctx.session.execute(text("INSERT INTO only_once VALUES (1)"))

    event_id = handle(defer)

    assert (stored.state(event_id), stored.effects(event_id)) == ("failed", 0)
    assert stored.log(event_id) == []


@pytest.mark.parametrize("exc", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_a_handler_that_wants_to_end_the_process_has_failed_and_spent_an_attempt(
    stored: Any, handle: Callable[..., UUID], exc: BaseException
) -> None:
    def leave(data: Any, ctx: Context) -> None:  # noqa: ARG001
        leave_effect(ctx)
        if isinstance(exc, SystemExit):
            sys.exit(1)
        raise exc

    event_id = handle(leave)

    assert (stored.state(event_id), stored.row(event_id).attempt, stored.effects(event_id)) == ("failed", 1, 0)


def test_another_database_being_down_is_a_failed_attempt_and_not_an_outage_of_ours(
    stored: Any, handle: Callable[..., UUID]
) -> None:
    def ask(data: Any, ctx: Context) -> None:  # noqa: ARG001
        leave_effect(ctx)
        engine = create_engine(f"postgresql+psycopg2://user@127.0.0.1:{free_port()}/other")
        with engine.connect():
            pass

    event_id = handle(ask)

    assert (stored.state(event_id), stored.error(event_id).error_type) == ("failed", "OperationalError")


def test_a_connection_killed_under_a_handler_judges_nothing_but_not_for_ever(
    stored: Any, executor: MakeExecutor
) -> None:
    def die(data: Any, ctx: Context) -> None:  # noqa: ARG001
        leave_effect(ctx)
        pid = ctx.session.execute(text("SELECT pg_backend_pid()")).scalar_one()
        stored.run(f"SELECT pg_terminate_backend({pid})")
        ctx.session.execute(text("SELECT 1"))

    event_id = stored.record("test.done")
    handlers = Handlers()
    handlers.on("test.done", name="handler")(die)
    one = executor(handlers)

    for version in (1, 3, 5):
        one.execute(event_id, version)
        assert (stored.state(event_id), stored.row(event_id).attempt, stored.row(event_id).crashes) == ("queued", 0, 0)
    one.execute(event_id, 7)

    assert (stored.state(event_id), stored.row(event_id).attempt, stored.effects(event_id)) == ("failed", 1, 0)
    assert stored.error(event_id).error_type == "DatabaseUnavailable"
