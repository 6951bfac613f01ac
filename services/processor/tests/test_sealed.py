"""Events whose data is sealed: with the key, without it, and when they were changed."""

import itertools
import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import text

from holdfast.domain.encryption_keys import key_text
from holdfast.domain.event import Doorbell
from holdfast.processor import Context, Handlers
from holdfast.storage.contents import table_contents
from holdfast.storage.database import Database
from holdfast.storage.sealing import open_sealing

MARKER = "planted-marker-4711"

KEY, OTHER = key_text(bytes(range(32))), key_text(bytes(32))

MakeExecutor = Callable[..., Any]


def handling(*, batch: int = 1, is_writing: bool = False) -> tuple[Handlers, list[Any]]:
    handlers, seen = Handlers(), list[Any]()

    def handle(data: Any, ctx: Context) -> None:
        seen.append(data)
        if is_writing:
            ctx.session.execute(text("SELECT 1"))
        ctx.emit("test.emitted", {"again": data["secret"]})

    handlers.on("test.sealed", name="handler", batch=batch)(handle)
    return handlers, seen


def test_it_runs_and_what_it_emits_is_sealed(stored: Any, executor: MakeExecutor, database_url: str) -> None:
    for is_writing in (False, True):
        handlers, seen = handling(is_writing=is_writing)
        event_id = recorded(stored, database_url)

        executor(handlers, encryption_keys=KEY).execute(event_id, 1)

        assert (seen, stored.state(event_id)) == ([{"secret": MARKER}], "processed")
    with stored.database.transaction() as session:
        assert MARKER not in json.dumps(table_contents(session))
    assert stored.scalar("SELECT count(*) FROM event WHERE data_key_id IS NOT NULL AND parent_id IS NOT NULL") == 2


def test_without_the_key_it_waits_and_nothing_is_held_against_it(
    stored: Any, executor: MakeExecutor, database_url: str, log_text: Callable[[], str]
) -> None:
    handlers, seen = handling()
    event_id = recorded(stored, database_url)
    lacking = [executor(handlers), executor(handlers, encryption_keys=OTHER)] * 3

    for each in lacking:
        version = stored.row(event_id).version
        each.execute(event_id, version)
        row = stored.row(event_id)
        assert (row.state, row.attempt, row.crashes, row.version) == ("queued", 0, 0, version + 2)
        assert 29 < row.due_in <= 30
        stored.make_due()

    assert (seen, stored.errors(event_id)) == ([], [])
    detail = stored.scalar("SELECT detail FROM event_update ORDER BY version DESC LIMIT 1")
    assert detail == {"reason": "key_missing", "retry_in_seconds": 30.0}
    assert "HOLDFAST_ENCRYPTION_KEYS" in log_text()

    executor(handlers, encryption_keys=f"{OTHER},{KEY}").execute(event_id, stored.row(event_id).version)
    assert (seen, stored.state(event_id)) == ([{"secret": MARKER}], "processed")


def test_an_event_that_has_waited_long_is_looked_at_rarely(
    stored: Any, executor: MakeExecutor, database_url: str
) -> None:
    event_id = recorded(stored, database_url)
    stored.run("UPDATE event SET received_at = now() - interval '3 h'")
    executor(handling()[0]).execute(event_id, 1)
    assert 599 < stored.row(event_id).due_in <= 600


def test_what_it_emits_cannot_be_sealed_so_it_waits_and_is_not_applied(
    stored: Any, executor: MakeExecutor, database_url: str
) -> None:
    for is_writing, batch in itertools.product((False, True), (1, 10)):
        handlers, _ = handling(is_writing=is_writing, batch=batch)
        recorded(stored, database_url)  # the tenant has a key, which the executor lacks
        event_id = stored.record("test.sealed", {"secret": MARKER})
        other = executor(handlers, encryption_keys=OTHER)
        for _ in range(5):
            other.execute(event_id, stored.row(event_id).version)
            assert (stored.row(event_id).attempt, stored.state(event_id)) == (0, "queued")
            stored.make_due()
        assert (stored.errors(event_id), stored.log(event_id)) == ([], [])
        executor(handlers, encryption_keys=KEY).execute(event_id, stored.row(event_id).version)
        assert stored.state(event_id) == "processed"


def test_changed_data_is_a_dead_letter_that_says_so(stored: Any, executor: MakeExecutor, database_url: str) -> None:
    handlers, seen = handling()
    event_id = recorded(stored, database_url)
    stored.run("UPDATE event SET data_bytes = set_byte(data_bytes, 20, get_byte(data_bytes, 20) # 1)")

    executor(handlers, encryption_keys=KEY).execute(event_id, 1)

    assert (seen, stored.state(event_id), stored.error(event_id).error_type) == ([], "dead", "data_unreadable")
    assert "restore it" in stored.error(event_id).message


def test_in_a_batch_the_others_run(stored: Any, executor: MakeExecutor, database_url: str) -> None:
    handlers, seen = handling(batch=10, is_writing=True)
    ids = [recorded(stored, database_url) for _ in range(3)]
    plain = stored.record("test.sealed", {"secret": "plain"})
    stored.rows("UPDATE event SET data_bytes = substr(data_bytes, 1, 20) WHERE id = :id RETURNING id", ids[1])
    made = executor(handlers, encryption_keys=KEY)

    [group] = made.groups(made.claim([Doorbell(each, 1) for each in (*ids, plain)]))
    made.run_together(group)

    assert [stored.state(each) for each in (*ids, plain)] == ["processed", "dead", "processed", "processed"]
    assert len(seen) == 3


def recorded(stored: Any, database_url: str) -> Any:
    """A sealed event; recorded by another process, so to say."""
    database = Database(database_url, application_name="test", pool_size=1, sealing=open_sealing(KEY))
    before, stored.database = stored.database, database
    try:
        return stored.record("test.sealed", {"secret": MARKER})
    finally:
        stored.database = before
        database.close()
