"""What handler authors test with, tested."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.orm import Session as SqlalchemySession

from holdfast.domain.errors import ConfigurationError
from holdfast.processor import Attempt, Backoff, Concurrency, Context, Handlers, Rate, Reject, Retry
from holdfast.processor.handlers.outcomes import InvalidResult
from holdfast.processor.testing import (
    Attempted,
    Queued,
    Run,
    assert_idempotent,
    attempt,
    limit_key,
    queued,
    rate_key,
    run,
)
from holdfast.storage import Session
from holdfast.storage.database import Database


class Order(BaseModel):
    order_id: str = Field(alias="orderId")
    day: date


ORDER = {"orderId": "1", "day": "2026-11-24"}


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.transaction() as session:
        session.execute(text("CREATE TABLE booked (order_id text, day date)"))
        yield session


def book(order: Order, ctx: Context) -> dict[str, Any]:
    ctx.session.execute(text("INSERT INTO booked VALUES (:id, :day)"), {"id": order.order_id, "day": order.day})
    ctx.progress(0.5)
    ctx.progress(0.6, "nearly")
    ctx.log.info("booked")
    return {"booked": order.order_id, "attempt": ctx.attempt, "subject": ctx.event.subject, "at": str(ctx.event.time)}


def book_once(order: Order, ctx: Context) -> None:
    statement = "INSERT INTO booked SELECT :id, :day WHERE NOT EXISTS (SELECT FROM booked WHERE order_id = :id)"
    ctx.session.execute(text(statement), {"id": order.order_id, "day": order.day})


def count(session: Session) -> int:
    return int(session.execute(text("SELECT count(*) FROM booked")).scalar_one())


def test_a_run_has_result_progress_and_effects(session: Session) -> None:
    moment = datetime(2026, 11, 24, tzinfo=UTC)

    done = run(book, ORDER, session=session, attempt=2, subject="7", time=moment)

    assert done.result == {"booked": "1", "attempt": 2, "subject": "7", "at": "2026-11-24 00:00:00+00:00"}
    assert done.progress == [(0.5, None), (0.6, "nearly")], "each report, however fast they follow"
    assert count(session) == 1


def test_a_model_is_sent_as_a_producer_would_send_it(session: Session) -> None:
    assert run(book, Order.model_validate(ORDER), session=session).result["booked"] == "1"


def test_data_that_does_not_fit_is_refused_as_in_production(session: Session) -> None:
    with pytest.raises(ValidationError):
        run(book, {"orderId": "1"}, session=session)


def test_a_result_that_cannot_be_stored_is_refused_as_in_production(session: Session) -> None:
    def answer(data: Any, ctx: Context) -> Any:  # noqa: ARG001
        return object()

    with pytest.raises(InvalidResult):
        run(answer, None, session=session)


def test_a_handler_that_commits_is_refused_as_in_production_and_the_test_may_still(session: Session) -> None:
    def commit(data: Any, ctx: Context) -> None:  # noqa: ARG001
        ctx.session.commit()

    with pytest.raises(RuntimeError, match="does not commit"):
        run(commit, None, session=session)
    assert "commit" not in vars(session)


def test_a_function_of_another_shape_is_refused_as_in_production(session: Session) -> None:
    with pytest.raises(ConfigurationError, match="two arguments"):
        run(lambda data: data, None, session=session)


def test_a_handler_that_does_the_same_twice_is_not_idempotent(session: Session) -> None:
    with pytest.raises(AssertionError, match="the second run changed booked"):
        assert_idempotent(book, ORDER, session=session)


def test_a_handler_that_looks_before_it_writes_is_idempotent(session: Session) -> None:
    assert_idempotent(book_once, ORDER, session=session)

    assert count(session) == 1


def test_both_runs_have_one_event_and_so_one_idempotency_key(session: Session) -> None:
    keys = []

    def remember(data: Any, ctx: Context) -> None:  # noqa: ARG001
        keys.append(ctx.idempotency_key)

    assert_idempotent(remember, None, session=session, name="remember")

    assert keys[0] == keys[1]
    assert keys[0].endswith(":remember")


handlers = Handlers()


@handlers.on("test.book", "test.book.*", name="book", retry=Backoff(first=60, cap=600, attempts=3), final=(KeyError,))
def book_as_told(data: Any, ctx: Context) -> Any:
    ctx.session.execute(text("INSERT INTO booked VALUES ('1', NULL)"))
    ctx.progress(0.5)
    exec(data or "", {"ctx": ctx, "Reject": Reject, "Retry": Retry, "text": text})  # noqa: S102 (what the test asks for)
    return {"type": ctx.event.type}


@handlers.on("test.call", name="call", transactional=False, timeout=0.001)
def call(data: Any, ctx: Context) -> str:  # noqa: ARG001
    while not ctx.cancelled:
        ctx.progress(0.1)
    return "stopped"


@handlers.on("test.mistake", name="mistake", transactional=False)
def use_the_session(data: Any, ctx: Context) -> None:  # noqa: ARG001
    ctx.session.execute(text("SELECT 1"))


def test_an_attempt_that_succeeds_is_processed_with_its_effects(session: Session) -> None:
    done = attempt(book_as_told, None, session=session)

    assert done == Attempted("processed", {"type": "test.book"}, [(0.5, None)])
    assert count(session) == 1


@pytest.mark.parametrize(
    ("number", "code", "state", "error", "retry_in_seconds"),
    [
        (1, "1 / 0", "failed", "ZeroDivisionError", 30),
        (2, "1 / 0", "failed", "ZeroDivisionError", 90),
        (3, "1 / 0", "dead", "ZeroDivisionError", None),
        (1, "raise Retry('later', after=7)", "failed", "Retry", 7),
        (1, "raise Reject('never', code='sold_out')", "dead", "sold_out", None),
        (1, "raise KeyError('x')", "dead", "KeyError", None),
        (1, "raise SystemExit", "failed", "SystemExit", 30),
        (1, "ctx.session.commit()", "failed", "RuntimeError", 30),
    ],
)
def test_an_attempt_that_fails_ends_as_in_production_and_its_effects_are_gone(
    session: Session, number: int, code: str, state: str, error: str, retry_in_seconds: float | None
) -> None:
    done = attempt(book_as_told, code, session=session, number=number)

    assert (done.state, done.error and done.error.type, done.retry_in_seconds) == (state, error, retry_in_seconds)
    assert (done.result, done.progress) == (None, [(0.5, None)])
    assert count(session) == 0


def test_data_that_does_not_fit_makes_a_dead_letter(session: Session) -> None:
    done = attempt(book, {"orderId": "1"}, session=session)

    assert (done.state, done.error and done.error.type) == ("dead", "invalid_data")


def test_a_result_that_cannot_be_stored_makes_a_dead_letter(session: Session) -> None:
    done = attempt(lambda data, ctx: object(), None, session=session)  # noqa: ARG005

    assert (done.state, done.error and done.error.type) == ("dead", "invalid_result")


def test_an_error_of_a_statement_that_was_swallowed_is_the_attempts_failure(session: Session) -> None:
    code = "try: ctx.session.execute(text('SELECT 1/0'))\nexcept Exception: pass"

    done = attempt(book_as_told, code, session=session)

    assert (done.state, done.error and done.error.type) == ("failed", "transaction_aborted")
    assert "SELECT 1/0" in (done.error.message if done.error else "")
    assert count(session) == 0


@pytest.mark.parametrize("then", ["", "\n1 / 0"])
def test_a_handler_that_commits_by_other_means_makes_a_dead_letter(database: Database, then: str) -> None:
    code = f"ctx.session.connection().connection.dbapi_connection.cursor().execute('COMMIT'){then}"
    with database.transaction() as session:
        session.execute(text("CREATE TABLE booked (order_id text, day date)"))

    with Session(database.engine) as session:
        done = attempt(book_as_told, code, session=session)
        assert (done.state, done.error and done.error.type) == ("dead", "transaction_ended")
        assert count(session) == 1, "nothing takes back what was committed"


def test_a_handler_without_a_transaction_needs_no_database_and_is_given_none(session: Session) -> None:
    for given in (None, session):
        with pytest.raises(RuntimeError, match=r"has no ctx\.session"):
            run(use_the_session, None, session=given)
        tried = attempt(use_the_session, None, session=given)
        assert (tried.state, tried.error and tried.error.type) == ("failed", "RuntimeError")


def test_a_transactional_handler_needs_one() -> None:
    for kit in (run, attempt):
        with pytest.raises(ConfigurationError, match="book is a transactional handler: pass session="):
            kit(book_as_told, None)


def test_cancelled_is_what_the_test_says_and_no_timeout_interferes() -> None:
    answers = iter([False, False, True])

    done = run(call, None, cancelled=lambda: next(answers))

    assert done == Run("stopped", [(0.1, None)] * 2)
    assert run(call, None, cancelled=True) == Run("stopped", [])


def test_the_declaration_is_that_of_the_function_its_name_and_its_type(session: Session) -> None:
    keys = []

    @handlers.on("test.keys.one", name="one", transactional=False)
    @handlers.on("test.keys.*", name="many", transactional=False)
    def remember(data: Any, ctx: Context) -> None:  # noqa: ARG001
        keys.append((ctx.idempotency_key.partition(":")[2], ctx.event.type))

    run(remember, None, name="one")
    run(remember, None, name="many")
    run(handlers.find("test.keys.more"), None, type="test.keys.more")

    assert keys == [("one", "test.keys.one"), ("many", "test"), ("many", "test.keys.more")]
    for wrong in (None, "none"):
        with pytest.raises(ConfigurationError, match="declared as many, one; pass one of them as name="):
            run(remember, None, name=wrong)
    with pytest.raises(ConfigurationError, match="no handler was found"):
        run(handlers.find("nobody.serves.this"), None, session=session)


def test_what_is_around_a_handler_is_around_it_here_too() -> None:
    inner, outer = Handlers(), Handlers()

    @inner.on("test.around", name="around", transactional=False)
    def handle(data: Any, ctx: Context) -> list[str]:  # noqa: ARG001
        return ["handler"]

    inner.around(lambda attempt, call: ["inner", *call()])  # noqa: ARG005
    outer.include(inner)
    outer.around(lambda attempt, call: ["outer", *call()])  # noqa: ARG005

    assert run(handle, None).result == ["inner", "handler"]
    assert attempt(outer.find("test.around"), None).result == ["outer", "inner", "handler"]


def test_a_session_that_cannot_be_looked_into_is_refused_with_the_remedy(database_url: str) -> None:
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg2"))
    with SqlalchemySession(engine) as session, pytest.raises(ConfigurationError, match=r"storage\.database\.Database"):
        attempt(book, ORDER, session=session)
    engine.dispose()


def remind(data: Any, ctx: Context) -> str:  # noqa: ARG001
    paid: dict[str, str] = ctx.step("charge", lambda: {"id": "new"})
    ctx.sleep("1 day", name="a day")
    return str(ctx.step("remind", lambda: paid["id"]))


def test_a_run_goes_through_sleeps_and_returns_the_steps_that_it_did() -> None:
    handlers = Handlers()
    handlers.on("test", name="remind", transactional=False)(remind)

    assert run(remind, {}).steps == {"charge": {"id": "new"}, "a day": timedelta(days=1), "remind": "new"}

    resumed = run(remind, {}, steps={"charge": {"id": "old"}, "a day": timedelta(days=1)})
    assert (resumed.result, resumed.steps) == ("old", {"remind": "old"})


async def ask(payload: dict[str, str], ctx: Context) -> str:
    ctx.progress(0.5, "asking")
    await asyncio.sleep(0)
    ctx.emit("asked", payload)
    if ctx.cancelled:
        raise Retry("told to stop", after=7)
    return payload["of"]


def test_coroutines_are_run_to_their_end_without_any_server() -> None:
    done = run(ask, {"of": "them"})

    assert (done.result, done.progress, [each.type for each in done.emitted]) == ("them", [(0.5, "asking")], ["asked"])
    tried = attempt(ask, {"of": "them"}, cancelled=True)
    assert (tried.state, tried.retry_in_seconds, tried.emitted) == ("failed", 7, [])
    assert attempt(ask, []).state == "dead", "its data does not fit"


def test_coroutines_have_no_steps_in_tests_either() -> None:
    async def work(payload: Any, ctx: Context) -> None:  # noqa: ARG001
        ctx.step("charge", lambda: None)

    with pytest.raises(RuntimeError, match=r"test_testing.py:\d+: an async def handler has no ctx\.step"):
        run(work, None)


def test_coroutines_are_run_as_they_are_declared_with_what_is_around_them() -> None:
    handlers = Handlers()

    @handlers.on("test.asked", name="ask")
    async def asks(payload: dict[str, str], ctx: Context) -> str:
        return await ask(payload, ctx)

    @handlers.around
    async def shout(_: Attempt, call: Callable[[], Any]) -> str:
        return str(await call()).upper()

    assert run(handlers.find("test.asked"), {"of": "them"}).result == "THEM"


def test_a_test_that_is_a_coroutine_is_told_how_to_call_one() -> None:
    async def test() -> None:
        with pytest.raises(ConfigurationError, match=r"asyncio[.]to_thread"):
            run(ask, {"of": "them"})
        assert (await asyncio.to_thread(run, ask, {"of": "them"})).result == "them"

    asyncio.run(test())


def test_limits_say_which_events_count_together_and_who_takes_them() -> None:
    handlers = Handlers()

    @handlers.on(
        "order.placed", name="charge", priority=8, pool="gpu", limit=Concurrency(5, key="/account"),
        rate=Rate(100, per=60, key="subject"),
    )  # fmt: skip
    def charge(data: Any, ctx: Context) -> None: ...

    @handlers.on("order.billed", name="bill")
    def bill(data: Any, ctx: Context) -> None: ...

    assert limit_key(charge, {"account": "a"}) == limit_key(charge, {"account": "a", "n": 2}, subject="s")
    assert limit_key(charge, {"account": "a"}) != limit_key(charge, {"account": "b"})
    assert limit_key(charge, {"account": "a"}, tenant="x") != limit_key(charge, {"account": "a"}, tenant="y")
    assert rate_key(handlers.find("order.placed"), {}, subject="s") == Rate(100, per=60, key="subject").line(
        "charge", "test", "s", {}
    )
    assert (limit_key(bill, {}), rate_key(bill, {})) == (None, None)
    assert queued(charge) == Queued(8, "gpu")
    assert queued(bill) == Queued(5, "default")
