"""Doorbells that are answered at the same moment share a claim, and nothing else."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from holdfast.domain.event import Doorbell
from holdfast.processor import Context, Handlers

COUNT = 8

MakeExecutor = Callable[..., Any]

CLAIMS = "SELECT count(DISTINCT CAST(xmin AS text)) FROM event_update WHERE state = 'processing'"

handlers = Handlers()

begun: list[UUID] = []
"""Events whose handler has begun, however it ended."""


@handlers.on("test.done", name="done")
def leave_effect(data: Any, ctx: Context) -> None:  # noqa: ARG001
    begun.append(ctx.event.id)
    ctx.session.execute(text("INSERT INTO effect VALUES (:id, '')"), {"id": ctx.event.id})


@handlers.on("test.turn", name="turn", ordering="subject")
def take_turn(data: Any, ctx: Context) -> None:
    leave_effect(data, ctx)


@pytest.fixture
def answer(executor: MakeExecutor) -> Callable[..., None]:
    """Answer doorbells that ring at one moment."""

    def run(*doorbells: tuple[UUID, int]) -> None:
        made = executor(handlers)
        for lease in made.claim([Doorbell(*doorbell) for doorbell in doorbells]):
            made.run(lease)

    return run


def test_doorbells_of_a_moment_are_claimed_in_one_transaction(stored: Any, live: Any, answer: Any) -> None:
    event_ids = [stored.record("test.done") for _ in range(COUNT)]

    answer(*((event_id, 1) for event_id in event_ids))

    assert stored.scalar(CLAIMS) == 1
    assert [stored.state(each) for each in event_ids] == ["processed"] * COUNT
    assert [stored.effects(each) for each in event_ids] == [1] * COUNT
    assert [state for each in event_ids for state, _, _ in live.told(each)] == ["processing", "processed"] * COUNT


def test_a_doorbell_that_is_rung_many_times_at_once_is_answered_once(stored: Any, answer: Any) -> None:
    first, same = stored.record("test.done"), stored.record("test.done")

    answer((first, 1), *[(same, 1)] * COUNT)

    assert (begun.count(same), stored.effects(same), stored.row(same).attempt) == (1, 1, 1)
    assert len(stored.log(same)) == 1


def test_stale_ones_and_types_without_handler_take_no_other_along(stored: Any, answer: Any) -> None:
    good = [stored.record("test.done") for _ in range(4)]
    stale, unserved = stored.record("test.done"), stored.record("test.unknown")

    answer(*((each, 1) for each in good), (stale, 7), (unserved, 1))

    assert [stored.state(each) for each in good] == ["processed"] * 4
    assert stored.state(stale) == "queued"
    assert stored.error(unserved).error_type == "no_handler"


def test_events_of_one_subject_keep_their_order(stored: Any, answer: Any) -> None:
    turns = [stored.record("test.turn", subject="7") for _ in range(4)]

    answer((stored.record("test.done"), 1), *((each, 1) for each in reversed(turns)))

    done = [log.event_id for log in stored.rows("SELECT event_id FROM processed_event_log ORDER BY processed_at")]
    assert [each for each in done if each in turns] == turns[: len(done) - 1], (
        "as many as have had their turn, in order"
    )


def test_an_earlier_event_that_is_just_being_put_in_line_is_not_overtaken(stored: Any, executor: MakeExecutor) -> None:
    first, second = (stored.record("test.turn", subject="7") for _ in range(2))
    made = executor(handlers)

    with stored.database.engine.connect() as claimer:  # it has looked at the first one and goes on in a moment
        claimer.execute(text("SELECT FROM processing_state WHERE event_id = :id FOR NO KEY UPDATE"), {"id": first})
        made.execute(second, 1)
        assert stored.state(second) == "queued"

    made.execute(first, 1)
    made.execute(second, stored.row(second).version)
    assert [stored.state(each) for each in (first, second)] == ["processed", "processed"]
