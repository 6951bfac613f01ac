"""What processors say that their handlers declare, and what runs and waits under their limits."""

from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest
from sqlalchemy import text

from holdfast.domain.declared import DeclaredHandler
from holdfast.domain.event import NewEvent
from holdfast.domain.limits import Concurrency, Rate
from holdfast.runtime.ids import uuid7
from holdfast.storage import declared, events, nodes
from holdfast.storage.database import Database
from holdfast.storage.declared import Load, declared_handlers, loads
from holdfast.storage.nodes import Identity

CHARGE = DeclaredHandler("charge", 7, "gpu", Concurrency(5, key="/account"), Rate(100, per=60))
PLAIN = DeclaredHandler("plain")

OLD = Identity("0123456789ab", "processor", "box", 10, "1.0", "worker-0", 11, handlers=(PLAIN, CHARGE))

_SET = text("""
-- Parameters: ids; line; held; state.
UPDATE processing_state SET state = :state, waits_in = :line, held_limit = :held,
    unserved_type = CASE WHEN CAST(:line AS text) IS NOT NULL THEN '' END,
    waiting_since = CASE WHEN CAST(:line AS text) IS NOT NULL THEN now() END,
    lease_token = CASE WHEN CAST(:held AS text) IS NOT NULL THEN gen_random_uuid() END,
    lease_expires_at = CASE WHEN CAST(:held AS text) IS NOT NULL THEN now() + interval '1 h' END
WHERE event_id = ANY (:ids)
""")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="test")
    yield made
    made.close()


def fill(database: Database, count: int, *, line: str | None = None, held: str | None = None) -> None:
    made = [
        NewEvent(id=uuid7(), tenant="acme", source="/s", ce_id=uuid4().hex, type="t", data_json="{}")
        for _ in range(count)
    ]
    with database.transaction() as session:
        events.record(session, made, grace_seconds=60)
        parameters = {"ids": [each.id for each in made], "line": line, "held": held}
        session.execute(_SET, parameters | {"state": "processing" if held else "queued"})


def test_what_is_as_usual_is_not_told_and_all_is_heard_as_it_was_declared() -> None:
    assert PLAIN.told() == {"name": "plain"}
    for each in (PLAIN, CHARGE, replace(CHARGE, limit=None), replace(CHARGE, rate=None, pool="")):
        assert DeclaredHandler.heard(each.told()) == each


def test_live_processors_are_heard_and_the_latest_one_where_they_differ(database: Database) -> None:
    later = replace(CHARGE, priority=9)
    database.call(nodes.enter, OLD, is_drained=False)
    with database.transaction() as session:
        session.execute(text("UPDATE node SET started_at = now() - interval '1 h'"))
    database.call(nodes.enter, replace(OLD, node_id="b" * 12, handlers=(later,)), is_drained=False)
    assert database.call(declared_handlers) == [later, PLAIN]

    with database.transaction() as session:
        session.execute(
            text("UPDATE node_worker SET beat_at = now() - interval '31 s' WHERE node_id = :id"), {"id": "b" * 12}
        )

    assert database.call(declared_handlers) == [CHARGE, PLAIN], "of who is silent nobody hears"


def test_a_node_that_is_entered_again_says_what_its_handlers_declare_now(database: Database) -> None:
    database.call(nodes.enter, OLD, is_drained=False)
    database.call(nodes.enter, replace(OLD, handlers=(PLAIN,)), is_drained=False)

    assert database.call(declared_handlers) == [PLAIN]


def test_only_so_many_handlers_are_written_down(database: Database) -> None:
    many = tuple(DeclaredHandler(f"h-{number:04}") for number in range(nodes.MOST_HANDLERS + 1))
    database.call(nodes.enter, replace(OLD, handlers=many[::-1]), is_drained=False)

    assert database.call(declared_handlers) == list(many[:-1])


def test_what_runs_and_waits_is_counted_by_handler_over_all_of_its_lines(database: Database) -> None:
    fill(database, 3, line="limit:charge:acme/1")
    fill(database, 2, line="limit:charge:acme/2")
    fill(database, 4, line="rate:charge")
    fill(database, 1, line="limit:charge-more:acme/1")
    fill(database, 7, line="pause:01a20ce1-a999-7253-85bb-3c3e269307a2")
    fill(database, 2, held="limit:charge:acme/1")
    fill(database, 5)

    assert database.call(loads) == {"charge": Load(2, 9), "charge-more": Load(0, 1)}


def test_long_lines_and_many_lines_are_counted_as_at_least(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(database, declared.MOST_WAITING + 5, line="limit:charge")
    fill(database, 1, line="limit:a")
    assert database.call(loads) == {"a": Load(0, 1), "charge": Load(0, declared.MOST_WAITING, True)}

    monkeypatch.setattr(declared, "MOST_LINES", 1)

    assert database.call(loads) == {"a": Load(0, 1, True)}, "there may be other lines of it"
