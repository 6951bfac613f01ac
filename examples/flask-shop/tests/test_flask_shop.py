"""The shop with Holdfast beside it."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, create_engine, make_url, text

from flask_shop.app import create_app
from flask_shop.handlers import handlers, pack, send_receipt
from flask_shop.tables import Order
from holdfast.processor.testing import attempt, run
from holdfast.recording import Holdfast
from holdfast.storage.database import Database

ORDER = {"order": "A-1", "item": "beans"}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = create_engine(make_url(database_url).set(drivername="postgresql+psycopg2"))
    yield made
    made.dispose()


@pytest.fixture
def shop(engine: Engine, redis_url: str) -> Iterator[FlaskClient]:
    holdfast = Holdfast(tenant="acme", redis_url=redis_url)
    yield create_app(engine, holdfast).test_client()
    holdfast.close()


def counts(engine: Engine) -> tuple[int, int]:
    """How many events and orders there are."""
    with engine.connect() as connection:
        row = connection.execute(text("SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM flask_shop_order)"))
        return tuple(row.one())


def test_an_order_is_kept_with_its_event(shop: FlaskClient, engine: Engine) -> None:
    answer = shop.post("/orders", json=ORDER)

    assert (answer.status_code, answer.get_json()["order"]) == (201, "A-1")
    with engine.connect() as connection:
        row = connection.execute(text("SELECT id, type, subject FROM event")).one()
    assert (str(row.id), row.type, row.subject) == (answer.get_json()["event_id"], "flask-shop.order.placed", "A-1")
    assert shop.get("/orders/A-1").get_json() == ORDER | {"packed": False, "receipt_sent": False}


@pytest.mark.parametrize(
    ("again", "status"), [(ORDER, 409), ({"order": "A-2"}, 400), ({"order": "", "item": "x"}, 400)]
)
def test_an_order_that_is_refused_leaves_no_event(
    shop: FlaskClient, engine: Engine, again: dict[str, Any], status: int
) -> None:
    shop.post("/orders", json=ORDER)

    assert shop.post("/orders", json=again).status_code == status
    assert counts(engine) == (1, 1)
    assert shop.get("/orders/A-2").status_code == 404


def test_an_order_is_packed_and_its_receipt_asked_for(database_url: str) -> None:
    database = Database(database_url, application_name="test")
    with database.transaction() as session:
        session.add(Order(id="A-1", item="beans"))
        session.flush()
        packed = run(pack, {"order": "A-1"}, session=session, subject="A-1")
        [receipt] = packed.emitted
        run(send_receipt, receipt.data, session=session)

        order = session.get(Order, "A-1")
        assert order is not None
        assert (order.is_packed, order.is_receipt_sent) == (True, True)
        assert (receipt.type, receipt.subject) == ("flask-shop.receipt.requested", "A-1")
        lost = attempt(pack, {"order": "A-2"}, session=session)
        assert (lost.state, lost.error and lost.error.type, lost.emitted) == ("dead", "no_such_order", [])
    database.close()


def test_each_type_of_the_shop_has_its_handler() -> None:
    assert sorted(handlers.exact_types()) == ["flask-shop.order.placed", "flask-shop.receipt.requested"]
