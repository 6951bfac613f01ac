"""Handlers declared with ``batch``: their events share a transaction, and nothing else."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from holdfast.domain.event import Doorbell, Lease
from holdfast.local.fixtures import Eventually
from holdfast.processor import BatchContext, Context, Handlers, Reject
from holdfast.processor.worker.crew import Crew

COUNT = 50

MakeExecutor = Callable[..., Any]

LOCK = 4242
"""That of ``sample_handlers``."""

SETTLES = "SELECT count(DISTINCT CAST(xmin AS text)) FROM processed_event_log"

EXPIRED = "SELECT count(*) FROM processing_state WHERE state = 'processing' AND lease_expires_at < clock_timestamp()"

DEFERRED = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not at the commit'; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON effect DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.note = 'poison') EXECUTE FUNCTION refuse();
"""


def leave_effect(data: Any, ctx: Context) -> Any:
    note = data if isinstance(data, str) else ""
    ctx.session.execute(text("INSERT INTO effect VALUES (:id, :note)"), {"id": ctx.event.id, "note": note})
    return data


def handling(function: Callable[..., Any], **options: Any) -> Handlers:
    handlers = Handlers()
    handlers.on("test.done", name="batched", batch=COUNT, **options)(function)
    return handlers


@pytest.fixture
def batch(stored: Any, executor: MakeExecutor) -> Callable[..., list[Lease]]:
    """Run events with these data as one group; their leases, in the order of the data."""

    def run(handlers: Handlers, *data: Any, lost: int | None = None, lease_seconds: float = 60) -> list[Lease]:
        event_ids = [stored.record("test.done", each) for each in data]
        made = executor(handlers, lease_seconds=lease_seconds)
        leases = {lease.event.id: lease for lease in made.claim([Doorbell(each, 1) for each in event_ids])}
        if lost is not None:
            gone = (
                "UPDATE processing_state SET lease_token = gen_random_uuid(), lease_owner = 'other' WHERE event_id = "
            )
            stored.run(f"{gone}'{event_ids[lost]}'")
        [group] = made.groups([leases[each] for each in event_ids])
        made.run_together(group)
        return list(group)

    return run


def states(stored: Any, leases: list[Lease]) -> list[str]:
    return [stored.state(lease.event.id) for lease in leases]


def expected(index: int, state: str) -> list[str]:
    return [state if number == index else "processed" for number in range(COUNT)]


def test_events_of_a_batch_are_one_transaction(stored: Any, live: Any, batch: Any) -> None:
    leases = batch(handling(leave_effect), *range(COUNT))

    assert stored.scalar(SETTLES) == 1
    assert states(stored, leases) == ["processed"] * COUNT
    assert [stored.log(lease.event.id)[0].result for lease in leases] == list(range(COUNT)), "each its own"
    assert {stored.effects(lease.event.id) for lease in leases} == {1}
    assert {tuple(live.told(lease.event.id)) for lease in leases} == {(("processing", 2, 0), ("processed", 3, 0))}


def test_an_event_that_fails_among_49_fails_alone(stored: Any, batch: Any) -> None:
    def fail_one(data: Any, ctx: Context) -> Any:
        leave_effect(data, ctx)
        if data == 20:
            raise ConnectionError("the other side is away")
        if data == 30:
            raise Reject("never")
        if data == 40:
            ctx.session.execute(text("SELECT 1/0"))
        return data

    leases = batch(handling(fail_one), *range(COUNT))

    found = dict(enumerate(states(stored, leases)))
    assert {number: state for number, state in found.items() if state != "processed"} == {
        20: "failed", 30: "dead", 40: "failed",
    }  # fmt: skip
    assert [stored.effects(leases[number].event.id) for number in (19, 20, 21, 30, 40)] == [1, 0, 1, 0, 0]
    assert [stored.error(leases[number].event.id).error_type for number in (20, 30, 40)] == [
        "ConnectionError", "rejected", "DataError",
    ]  # fmt: skip
    assert stored.scalar(SETTLES) == 1, "the others still share one"


def test_one_that_spoils_the_commit_is_found_alone(stored: Any, batch: Any) -> None:
    stored.run(DEFERRED)

    leases = batch(handling(leave_effect), *("poison" if number == 7 else number for number in range(COUNT)))

    assert states(stored, leases) == expected(7, "failed")
    assert "not at the commit" in stored.error(leases[7].event.id).message
    assert [stored.effects(lease.event.id) for lease in leases] == [0 if number == 7 else 1 for number in range(COUNT)]


def test_one_that_hides_a_failed_statement_is_found_alone(stored: Any, batch: Any) -> None:
    def hide(data: Any, ctx: Context) -> Any:
        leave_effect(data, ctx)
        if data == 7:
            try:
                ctx.session.execute(text("SELECT 1/0"))
            except Exception:  # noqa: BLE001 (what a careless handler does)
                return None
        return data

    leases = batch(handling(hide), *range(COUNT))

    assert states(stored, leases) == expected(7, "failed")
    assert stored.error(leases[7].event.id).error_type == "transaction_aborted"
    assert stored.effects(leases[7].event.id) == 0


def test_a_lost_lease_among_them_is_lost_alone(stored: Any, batch: Any) -> None:
    leases = batch(handling(leave_effect), *range(COUNT), lost=7)

    assert states(stored, leases) == expected(7, "processing")
    assert stored.row(leases[7].event.id).lease_owner == "other"
    assert stored.effects(leases[7].event.id) == 0


def test_after_a_commit_by_a_handler_what_had_begun_is_dead_and_the_rest_goes_on(stored: Any, batch: Any) -> None:
    def end(data: Any, ctx: Context) -> None:
        leave_effect(data, ctx)
        if data == 2:
            driver: Any = ctx.session.connection().connection.dbapi_connection
            driver.cursor().execute("COMMIT")

    leases = batch(handling(end), *range(COUNT))

    assert states(stored, leases) == ["dead"] * 3 + ["processed"] * (COUNT - 3)
    assert stored.error(leases[0].event.id).error_type == "transaction_ended"
    assert {stored.effects(lease.event.id) for lease in leases} == {1}, "none was applied again"


def test_a_batch_that_takes_long_is_committed_in_parts(stored: Any, batch: Any) -> None:
    expired: list[int] = []

    def take_long(data: Any, ctx: Context) -> None:
        leave_effect(data, ctx)
        ctx.session.execute(text("SELECT pg_sleep(0.06)"))
        expired.append(ctx.session.scalar(text(EXPIRED)))

    began = time.monotonic()
    leases = batch(handling(take_long), *range(COUNT), lease_seconds=2)
    assert time.monotonic() - began > 2, "longer than a lease"

    assert states(stored, leases) == ["processed"] * COUNT
    assert stored.scalar(SETTLES) > 1
    assert max(expired) == 0, "those whose part has not come are kept"
    assert {stored.effects(lease.event.id) for lease in leases} == {1}


class Base(DeclarativeBase):
    """For one table."""


class Effect(Base):
    __tablename__ = "effect"

    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    note: Mapped[str]


def test_each_event_finds_an_empty_session(batch: Any) -> None:
    seen: list[int] = []
    kept: list[Effect] = []  # a session forgets by itself what nobody refers to

    def look(data: Any, ctx: Context) -> None:  # noqa: ARG001
        seen.append(len(ctx.session.identity_map))
        kept.append(Effect(event_id=ctx.event.id, note=""))
        ctx.session.add(kept[-1])

    batch(handling(look), *range(COUNT))

    assert seen == [0] * COUNT


def book(numbers: list[int], ctx: BatchContext) -> list[int]:
    ids = [{"id": each.event.id} for each in ctx.items]
    ctx.session.execute(text("INSERT INTO effect VALUES (:id, 'booked')"), ids)
    return [2 * number for number in numbers]


def test_a_handler_of_lists_is_called_once_for_all(stored: Any, live: Any, batch: Any) -> None:
    calls: list[int] = []

    def count(numbers: list[int], ctx: BatchContext) -> list[int]:
        calls.append(len(numbers))
        return book(numbers, ctx)

    leases = batch(handling(count), *range(COUNT))

    assert calls == [COUNT]
    assert stored.scalar(SETTLES) == 1
    assert [stored.log(lease.event.id)[0].result for lease in leases] == [2 * number for number in range(COUNT)]
    assert {stored.effects(lease.event.id) for lease in leases} == {1}
    assert {tuple(live.told(lease.event.id)) for lease in leases} == {(("processing", 2, 0), ("processed", 3, 0))}


def test_one_of_a_list_may_fail_and_one_may_not_fit(stored: Any, batch: Any) -> None:
    def fail_one(numbers: list[int], ctx: BatchContext) -> None:
        for index, (number, each) in enumerate(zip(numbers, ctx.items, strict=True)):
            if number == 20:
                ctx.fail(index, Reject("never"))
            else:
                ctx.session.execute(text("INSERT INTO effect VALUES (:id, '')"), {"id": each.event.id})

    leases = batch(handling(fail_one), *("no number" if number == 7 else number for number in range(COUNT)))

    found = {number: state for number, state in enumerate(states(stored, leases)) if state != "processed"}
    assert found == {7: "dead", 20: "dead"}
    assert [stored.error(leases[number].event.id).error_type for number in (7, 20)] == ["invalid_data", "rejected"]
    assert {stored.effects(lease.event.id) for lease in leases} == {0, 1}
    assert stored.scalar(SETTLES) == 1


def test_a_list_that_fails_as_a_whole_is_tried_one_by_one(stored: Any, batch: Any) -> None:
    def fail_if_seven(numbers: list[int], ctx: BatchContext) -> list[int]:
        booked = book(numbers, ctx)
        if 7 in numbers:
            raise ConnectionError("the other side is away")
        return booked

    leases = batch(handling(fail_if_seven), *range(COUNT))

    assert states(stored, leases) == expected(7, "failed")
    assert [stored.effects(lease.event.id) for lease in leases] == [0 if number == 7 else 1 for number in range(COUNT)]


@pytest.mark.parametrize("returned", [[1, 2], "text", 3])
def test_results_of_a_list_are_as_many_as_payloads(stored: Any, batch: Any, returned: Any) -> None:
    def mistake(numbers: list[int], ctx: BatchContext) -> Any:  # noqa: ARG001
        return returned

    leases = batch(handling(mistake), 1, 2, 3)

    assert states(stored, leases) == ["dead"] * 3
    assert "a list of 1 results" in stored.error(leases[0].event.id).message


def test_suspects_and_other_handlers_are_in_no_batch(stored: Any, executor: MakeExecutor) -> None:
    handlers = handling(leave_effect)
    handlers.on("test.other", name="other")(leave_effect)
    event_ids = [stored.record("test.done") for _ in range(3)] + [stored.record("test.other")]
    stored.run(f"UPDATE processing_state SET crashes = 1 WHERE event_id = '{event_ids[0]}'")  # noqa: S608
    made = executor(handlers)

    groups = made.groups(made.claim([Doorbell(each, 1) for each in event_ids]))

    assert sorted(len(group) for group in groups) == [1, 1, 2]


def test_a_worker_killed_within_a_batch_loses_and_doubles_nothing(
    start: Callable[..., Any], stored: Any, live: Any, eventually: Eventually
) -> None:
    worker = start(LEASE_SECONDS="2", PROCESSOR_THREADS="8")
    event_ids = [stored.record("test.batched", "blocks" if number % 8 == 5 else number) for number in range(40)]
    with stored.database.transaction() as session:
        session.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        live.ring(*((each, 1) for each in event_ids))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
        eventually(lambda: stored.scalar(waiting) > 0, message="a batch is half-way")
        done = stored.count("processed")
        worker.kill()

    start(LEASE_SECONDS="2")

    eventually(lambda: stored.count("processed") == 40, timeout_seconds=60)
    assert done < 40
    assert stored.scalar("SELECT count(*) FROM effect") == 40
    assert stored.scalar("SELECT count(DISTINCT event_id) FROM effect") == 40


def test_events_of_several_claims_fill_a_batch(stored: Any, executor: MakeExecutor, eventually: Eventually) -> None:
    made = executor(handling(leave_effect))
    crew = Crew(made, threads=1, most_ahead=200)
    event_ids = [stored.record("test.done", number) for number in range(70)]
    ended: list[UUID] = []
    for start in range(0, 70, 20):
        claimed = made.claim([Doorbell(each, 1) for each in event_ids[start : start + 20]])
        crew.add([(lease, partial(ended.append, lease.event.id)) for lease in claimed])

    crew.start()

    eventually(lambda: len(ended) == len(event_ids))
    assert sorted(ended) == sorted(event_ids), "each ends once"
    sizes = "SELECT array_agg(n ORDER BY n) FROM (SELECT count(*) AS n FROM processed_event_log GROUP BY xmin::text) s"
    assert stored.scalar(sizes) == [20, 50], "twice 20 and 10 at first: no more than fit"
