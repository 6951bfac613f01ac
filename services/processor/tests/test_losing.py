"""What is left of an attempt whose worker loses its lease or its database."""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from sqlalchemy import text

from holdfast.domain.event import Doorbell
from holdfast.domain.state import State
from holdfast.domain.update import Update
from holdfast.local.servers import Postgres, free_port
from holdfast.messaging.live import Publisher
from holdfast.processor import Context, Handlers
from holdfast.runtime.telemetry import Metrics
from holdfast.storage import claims, leases
from holdfast.storage.database import Database
from holdfast.storage.migrate import upgrade

MakeExecutor = Callable[..., Any]


def handling(function: Callable[..., Any], **options: Any) -> Handlers:
    handlers = Handlers()
    handlers.on("test.done", name="handler", **options)(function)
    return handlers


def leave_effect(ctx: Context) -> None:
    ctx.session.execute(text("INSERT INTO effect VALUES (:id, '')"), {"id": ctx.event.id})


def just_leave_effect(data: Any, ctx: Context) -> None:  # noqa: ARG001
    leave_effect(ctx)


def do_nothing(data: Any, ctx: Context) -> None:
    """A handler without effects."""


class Recovering(Publisher):
    """Publishes, and lets maintenance recover the event right after its claim: the worker was away for too long."""

    def __init__(self, client: "redis.Redis", stored: Any) -> None:
        super().__init__(client, window_seconds=60, window_updates=1000)
        self._stored = stored

    def publish(self, updates: Sequence[Update]) -> None:
        super().publish(updates)
        if updates[0].state is State.PROCESSING:
            self._stored.recover()


def test_a_worker_whose_event_was_given_away_leaves_nothing(stored: Any, executor: MakeExecutor) -> None:
    event_id = stored.record("test.done")
    made = executor(handling(just_leave_effect))
    [lease] = made.claim([Doorbell(event_id, 1)])
    stored.take_away(event_id)

    made.run(lease)

    assert stored.state(event_id) == "processing"
    assert stored.row(event_id).lease_owner == "other"
    assert stored.scalar("SELECT count(*) FROM effect") == 0


def test_an_event_in_the_log_is_only_put_right(stored: Any, executor: MakeExecutor) -> None:
    event_id = stored.record("test.done")
    stored.run(f"INSERT INTO processed_event_log VALUES ('{event_id}', 'h', 1, gen_random_uuid(), '1', 0, now())")  # noqa: S608

    executor(handling(just_leave_effect)).execute(event_id, 1)

    assert stored.state(event_id) == "processed"
    assert stored.scalar("SELECT count(*) FROM effect") == 0
    assert stored.scalar("SELECT handler FROM processed_event_log") == "h"


def test_postgres_down_at_the_claim_judges_nothing(stored: Any, executor: MakeExecutor) -> None:
    event_id = stored.record("test.done")
    down = executor(handling(just_leave_effect), database_url=f"postgresql://user@127.0.0.1:{free_port()}/x")

    down.execute(event_id, 1)

    assert (stored.state(event_id), stored.row(event_id).version, stored.row(event_id).attempt) == ("queued", 1, 0)


def test_postgres_down_at_the_settling_leaves_the_lease_and_no_effect(
    own_postgres: Postgres, executor: MakeExecutor, make_stored: Callable[[Database], Any]
) -> None:
    upgrade(own_postgres.url())
    database = Database(own_postgres.url(), application_name="test")
    stored = make_stored(database)
    event_id = stored.record("test.done")

    def work(data: Any, ctx: Context) -> None:
        just_leave_effect(data, ctx)
        own_postgres.crash()

    # With a short lease: the worker tries to give the event back for so long.
    executor(handling(work), database_url=own_postgres.url(), lease_seconds=1).execute(event_id, 1)

    own_postgres.start()
    database.close()  # its connections lead to the server of before
    row = stored.row(event_id)
    # A claim is not durable: the crash may have taken it back. Either way nobody judged the attempt.
    assert (row.state, row.attempt) in (("processing", 1), ("queued", 0))
    assert (stored.effects(event_id), stored.errors(event_id)) == (0, [])
    database.close()


@pytest.mark.parametrize("is_let_out", [True, False])
def test_a_worker_that_lost_its_lease_before_it_began_gets_no_session(
    stored: Any, executor: MakeExecutor, redis_url: str, is_let_out: bool
) -> None:
    got: list[Any] = []

    def work(data: Any, ctx: Context) -> None:  # noqa: ARG001
        with contextlib.nullcontext() if is_let_out else contextlib.suppress(Exception):
            got.append(ctx.session)

    event_id = stored.record("test.done")
    lost = Metrics.lost_leases._value.get()
    with redis.Redis.from_url(redis_url) as client:
        executor(handling(work), publisher=Recovering(client, stored)).execute(event_id, 1)

    assert (stored.state(event_id), stored.row(event_id).version, got) == ("queued", 3, [])
    assert Metrics.lost_leases._value.get() == lost + 1


def test_a_handler_that_goes_on_without_the_session_it_asked_for_is_not_settled(
    stored: Any, executor: MakeExecutor
) -> None:
    event_id = stored.record("test.done")

    def go_on(data: Any, ctx: Context) -> None:  # noqa: ARG001
        with contextlib.suppress(Exception):
            _ = ctx.session
        locked.close()

    made = executor(handling(go_on), statement_timeout_seconds=0.2)
    [lease] = made.claim([Doorbell(event_id, 1)])
    with stored.database.engine.connect() as locked:
        locked.execute(text("SELECT FROM processing_state FOR UPDATE"))
        made.run(lease)

    assert (stored.state(event_id), stored.row(event_id).attempt) == ("queued", 0), "nothing was judged"


def test_a_handler_that_outlasts_its_lease_keeps_its_event(stored: Any, executor: MakeExecutor) -> None:
    recovered: list[Update] = []

    def linger(data: Any, ctx: Context) -> None:
        just_leave_effect(data, ctx)
        with stored.database.transaction() as session:
            recovered.extend(leases.recover_expired(session, limit=10))

    event_id = stored.record("test.done")

    executor(handling(linger), lease_seconds=0).execute(event_id, 1)

    assert recovered == []
    assert (stored.state(event_id), stored.row(event_id).attempt, stored.effects(event_id)) == ("processed", 1, 1)


def test_a_connection_that_breaks_between_handler_and_settling_judges_nothing(
    stored: Any, executor: MakeExecutor
) -> None:
    def break_it(data: Any, ctx: Context) -> None:
        just_leave_effect(data, ctx)
        stored.run(f"SELECT pg_terminate_backend({ctx.session.scalar(text('SELECT pg_backend_pid()'))})")

    event_id = stored.record("test.done")

    executor(handling(break_it)).execute(event_id, 1)

    assert (stored.state(event_id), stored.row(event_id).attempt, stored.row(event_id).crashes) == ("queued", 0, 0)
    assert (stored.effects(event_id), stored.errors(event_id)) == (0, [])


def test_a_server_that_takes_no_writes_for_a_while_judges_nothing(stored: Any, executor: MakeExecutor) -> None:
    event_id = stored.record("test.done")
    with stored.database.transaction() as session:
        [(lease, _)] = claims.claim_events(session, [(event_id, 1)], owner="test", lease_seconds=60)
    name = stored.scalar("SELECT current_database()")
    # As a standby is, or one that is full.
    stored.run(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')

    with ThreadPoolExecutor(1) as pool:
        attempt = pool.submit(executor(handling(just_leave_effect)).run, lease)
        with pytest.raises(TimeoutError):
            attempt.result(1)
        stored.run(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        attempt.result(30)

    row = stored.row(event_id)
    assert (row.state, row.attempt, row.crashes) == ("queued", 0, 0)
    assert stored.errors(event_id) == []


@pytest.mark.parametrize("is_transactional", [True, False])
def test_a_table_that_is_locked_for_long_judges_nothing(
    stored: Any, executor: MakeExecutor, is_transactional: bool
) -> None:
    event_id = stored.record("test.done")
    with stored.database.transaction() as session:
        [(lease, _)] = claims.claim_events(session, [(event_id, 1)], owner="test", lease_seconds=60)
    handlers = handling(do_nothing, transactional=is_transactional)
    made = executor(handlers, statement_timeout_seconds=0.2)

    with ThreadPoolExecutor(1) as pool:
        with stored.database.transaction() as session:
            session.execute(text("LOCK TABLE processing_state"))
            attempt = pool.submit(made.run, lease)
            with pytest.raises(TimeoutError):
                attempt.result(1)
        attempt.result(30)

    row = stored.row(event_id)
    assert (row.state, row.attempt, row.crashes) == ("queued", 0, 0)
    assert stored.errors(event_id) == []
