"""The app of docs/coming-from.md: from the tick to the mail."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text

from demo_shop import prices
from holdfast.processor.testing import assert_idempotent, attempt, run
from holdfast.storage import Session
from holdfast.storage.database import Database

MONDAY = datetime(2026, 11, 23, 4, tzinfo=UTC)


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    database = Database(database_url, application_name="test")
    with database.transaction() as opened:
        opened.execute(text(prices.TABLE))
        yield opened
    database.close()


def test_prices_are_collected_reported_and_mailed(session: Session) -> None:
    collected = run(prices.collect, {"items": ["beans", "mug"]}, session=session, time=MONDAY)
    [group] = collected.groups
    for member in group.members:
        run(handlers_of(member.type), member.data, session=session)
    ended = {"group": str(uuid4()), "processed": 2, "dead": 0, "discarded": 0, "data": group.data}
    [letter] = run(handlers_of(group.type), ended, session=session).emitted
    event_id = uuid4()
    sent = run(handlers_of(letter.type), letter.data, event_id=event_id)

    assert letter.data == {"to": "buyer@example.com", "text": "beans: 12.90\nmug: 18.00"}
    assert sent.result == f"{event_id}:send-mail"


def test_a_report_says_what_has_no_price(session: Session) -> None:
    ended = {"group": str(uuid4()), "processed": 0, "dead": 2, "discarded": 1, "data": {"day": "2026-11-23"}}

    [letter] = run(prices.report, ended, session=session).emitted

    assert letter.data["text"] == "3 without a price"


def test_a_supplier_that_is_away_is_asked_six_times(session: Session) -> None:
    wanted = {"item": "tea", "day": "2026-11-23"}

    states = [attempt(prices.fetch, wanted, session=session, number=number).state for number in (1, 5, 6)]

    assert states == ["failed", "failed", "dead"]


def test_a_price_that_is_fetched_twice_is_kept_once(session: Session) -> None:
    assert_idempotent(prices.fetch, {"item": "mug", "day": "2026-11-23"}, session=session)


def test_the_document_shows_this_code() -> None:
    """Whatever the document shows of the handlers is in the module, line by line."""
    document = (Path(__file__).parents[3] / "docs/coming-from.md").read_text()
    after = document.partition("### After")[2].partition("```python\n")[2].partition("```")[0]
    module = Path(prices.__file__).read_text()
    shown = [line for line in after.splitlines() if line.strip()]

    assert len(shown) > 20
    assert [line for line in shown if line not in module.splitlines()] == []


def handlers_of(event_type: str):  # type: ignore[no-untyped-def]
    return prices.handlers.find(event_type)
