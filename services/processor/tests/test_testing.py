"""What handler authors test with, tested."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import text

from holdfast.domain.errors import ConfigurationError
from holdfast.processor import Context
from holdfast.processor.handlers.outcomes import InvalidResult
from holdfast.processor.testing import assert_idempotent, run
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


def test_a_result_that_can_not_be_stored_is_refused_as_in_production(session: Session) -> None:
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
