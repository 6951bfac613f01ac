"""What each handler of the shop makes of an order."""

import pytest
from pydantic import ValidationError

from demo_shop.handlers import STEPS, Order, buy_gift_card, handlers, order_unicorn_mug, pack_order
from holdfast.processor.testing import attempt, run
from holdfast.storage import Session
from holdfast.storage.database import Database

ORDER = Order(order="A-1", item="beans")


@pytest.fixture
def session(database_url: str):  # type: ignore[no-untyped-def]
    database = Database(database_url, application_name="test")
    with database.transaction() as opened:
        yield opened
    database.close()


def test_an_order_reports_every_step_and_is_shipped(session: Session) -> None:
    done = run(pack_order, ORDER, session=session)

    assert done.result == {"order": "A-1", "shipped": "beans"}
    assert [message for _, message in done.progress] == [*STEPS, "handed to the courier"]
    fractions = [fraction for fraction, _ in done.progress]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_a_gift_card_fails_twice_and_succeeds_at_the_third_attempt(session: Session) -> None:
    tried = [attempt(buy_gift_card, ORDER, number=number, session=session) for number in (1, 2, 3)]

    assert [each.state for each in tried] == ["failed", "failed", "processed"]
    assert tried[0].retry_in_seconds == 3
    assert tried[0].error is not None
    assert tried[0].error.reason == "the payment provider does not answer"


def test_a_unicorn_mug_is_a_dead_letter_at_once(session: Session) -> None:
    tried = attempt(order_unicorn_mug, ORDER, session=session)

    assert (tried.state, tried.error and tried.error.type) == ("dead", "out_of_stock")


def test_an_order_does_not_hold_a_worker_for_longer_than_its_bound() -> None:
    with pytest.raises(ValidationError):
        Order(order="A-1", item="beans", seconds=41)


def test_each_type_of_the_shop_has_its_handler() -> None:
    types = ["shop.order.placed", "shop.giftcard.bought", "shop.unicorn.ordered"]

    assert sorted(handlers.exact_types()) == sorted(types)
