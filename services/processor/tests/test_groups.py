"""Groups of events that handlers make: one more event once each of them has ended, exactly once."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from holdfast.domain.data import MAX_DATA_BYTES
from holdfast.domain.event import Doorbell, Lease
from holdfast.domain.transitions import AttemptError, Completion, Transition, bury, discard, replay, settle
from holdfast.messaging.doorbell import QUEUE
from holdfast.processor import Context, Handlers
from holdfast.processor.testing import run
from holdfast.storage import Session, claims, groups, settling
from holdfast.storage.database import Database
from holdfast.storage.dispatch import redispatch_due

MakeExecutor = Callable[..., Any]


def split(count: int, ctx: Context) -> None:
    members = [{"type": "test.part", "data": part, "subject": f"part-{part}"} for part in range(count)]
    ctx.emit_group(members, then=("test.all.done", {"of": count, "exact": 1.10}), subject="whole", audience="user-1")


def split_and_fail(count: int, ctx: Context) -> None:
    split(count, ctx)
    raise RuntimeError("after making the group")


def do_part(part: int, ctx: Context) -> None:
    if part % 2:
        ctx.session.execute(text("INSERT INTO effect VALUES (:id, '')"), {"id": ctx.event.id})


def handling(function: Callable[..., Any], type_: str, **options: Any) -> Handlers:
    handlers = Handlers()
    handlers.on(type_, name=function.__name__.replace("_", "-"), **options)(function)
    return handlers


@pytest.fixture
def split_into(stored: Any, executor: MakeExecutor) -> Callable[[int], tuple[UUID, list[UUID]]]:
    """An event whose handler has made a group of so many: its id, and theirs."""

    def make(count: int) -> tuple[UUID, list[UUID]]:
        parent_id = stored.record("test.whole", count)
        executor(handling(split, "test.whole")).execute(parent_id, 1)
        listed = stored.rows(
            "SELECT id FROM event WHERE parent_id = :id AND type = 'test.part' ORDER BY data_bytes", parent_id
        )
        return parent_id, [row.id for row in listed]

    return make


def completions(stored: Any, parent_id: UUID) -> list[Any]:
    """The events that followed the groups of an event."""
    return list(
        stored.rows(
            "SELECT e.*, convert_from(e.data_bytes, 'UTF8') AS told, s.state FROM event e"
            " JOIN processing_state s ON s.event_id = e.id WHERE e.parent_id = :id AND e.type = 'test.all.done'",
            parent_id,
        )
    )


def summary(row: Any) -> tuple[int, int, int]:
    told = json.loads(row.told)
    return told["processed"], told["dead"], told["discarded"]


def claim(database: Database, event_ids: list[UUID]) -> list[Lease]:
    doorbells = [(event_id, 1) for event_id in event_ids]
    return [lease for lease, _ in database.call(claims.claim_events, doorbells, owner="w", lease_seconds=60)]


def done(lease: Lease) -> Transition:
    return settle(lease.event.id, lease.token, Completion("h", None, 1))


def died(lease: Lease) -> Transition:
    return bury(lease.event.id, lease.token, AttemptError("Reject", "no"))


@pytest.mark.parametrize("options", [{}, {"batch": 10}, {"transactional": False}])
def test_one_more_event_follows_the_last_of_a_group(
    stored: Any, live: Any, executor: MakeExecutor, split_into: Any, options: dict[str, Any]
) -> None:
    parent_id, parts = split_into(4)

    def part(data: Any, ctx: Context) -> None:
        if options.get("transactional", True):
            do_part(data, ctx)

    made = executor(handling(part, "test.part", **options))
    leases = made.claim([Doorbell(each, 1) for each in parts])
    by_id = {lease.event.id: lease for lease in leases}
    for group in made.groups([by_id[each] for each in parts[:3]]):
        made.run_together(group)
    assert completions(stored, parent_id) == [], "one is open"
    for group in made.groups([by_id[parts[3]]]):
        made.run_together(group)

    [follows] = completions(stored, parent_id)
    assert (follows.source, follows.subject, follows.audience, follows.state) == (
        "/holdfast/groups", "whole", "user-1", "queued",
    )  # fmt: skip
    assert summary(follows) == (4, 0, 0)
    assert '"data": {"of":4,"exact":1.1}' in follows.told
    assert live.told(follows.id) == [("queued", 1, 0)], "clients see it at once"
    rung = [json.loads(body)["args"][0] for body in live.client.hvals(f"dramatiq:{QUEUE}.msgs")]
    assert str(follows.id) in rung


def test_members_that_die_and_that_are_discarded_have_ended(stored: Any, database: Database, split_into: Any) -> None:
    parent_id, parts = split_into(3)
    first, second = claim(database, parts[:2])

    database.call(settling.move, [done(first), died(second)])
    assert completions(stored, parent_id) == []
    database.call(settling.move, [discard(parts[2])])

    [follows] = completions(stored, parent_id)
    assert summary(follows) == (1, 1, 1)


def test_a_member_counts_once_however_often_it_ends(stored: Any, database: Database, split_into: Any) -> None:
    parent_id, parts = split_into(2)
    [first] = claim(database, parts[:1])
    database.call(settling.move, [died(first)])
    for _ in range(2):  # dead, replayed, discarded, replayed, discarded
        database.call(settling.move, [replay(first.event.id)])
        database.call(settling.move, [discard(first.event.id)])
    assert completions(stored, parent_id) == [], "the other one is open"

    database.call(settling.move, [done(*claim(database, parts[1:]))])

    assert [summary(each) for each in completions(stored, parent_id)] == [(1, 1, 0)]


def test_what_is_rolled_back_has_not_ended(stored: Any, database: Database, split_into: Any) -> None:
    parent_id, parts = split_into(1)
    [lease] = claim(database, parts)

    session = Session(database.engine)
    settling.move(session, [done(lease)])
    session.close()  # as if it were killed before its commit
    assert completions(stored, parent_id) == []
    database.call(settling.move, [done(lease)])

    assert len(completions(stored, parent_id)) == 1


def test_a_process_that_dies_after_the_commit_leaves_the_event_to_redispatch(
    stored: Any, database: Database, split_into: Any
) -> None:
    parent_id, parts = split_into(1)
    database.call(settling.move, [done(*claim(database, parts))])  # and nobody rings

    [follows] = completions(stored, parent_id)
    stored.make_due()
    with database.transaction() as session:
        assert follows.id in [each.event_id for each in redispatch_due(session, limit=10)]


def test_members_of_two_groups_that_end_at_once_in_many_transactions(
    stored: Any, database: Database, split_into: Any
) -> None:
    made = [split_into(24), split_into(24)]
    leases = [claim(database, parts) for _, parts in made]
    mixed = [list(pair) for pair in zip(*leases, strict=True)]
    for number, pair in enumerate(mixed):
        if number % 2:
            pair.reverse()  # each transaction ends one of both, in either order

    with ThreadPoolExecutor(8) as threads:
        moved = list(threads.map(lambda pair: database.call(settling.move, [done(lease) for lease in pair]), mixed))

    for parent_id, _ in made:
        assert [summary(each) for each in completions(stored, parent_id)] == [(24, 0, 0)]
    assert sum(len(each.emitted) for each in moved) == 2, "each is told of by the one that recorded it"


def test_a_group_without_members_is_followed_at_once(stored: Any, live: Any, split_into: Any) -> None:
    parent_id, parts = split_into(0)

    [follows] = completions(stored, parent_id)
    assert (parts, summary(follows)) == ([], (0, 0, 0))
    assert live.told(follows.id) == [("queued", 1, 0)]


def test_an_attempt_that_fails_makes_no_group(stored: Any, executor: MakeExecutor) -> None:
    event_id = stored.record("test.whole", 3)

    executor(handling(split_and_fail, "test.whole")).execute(event_id, 1)

    assert stored.scalar("SELECT (SELECT count(*) FROM event_group) + (SELECT count(*) FROM event_group_member)") == 0


def test_how_far_a_group_is(database: Database, split_into: Any) -> None:
    parent_id, parts = split_into(3)
    [lease] = claim(database, parts[:1])
    database.call(settling.move, [died(lease)])

    [found] = database.call(groups.groups_of, parent_id)

    assert (found.type, found.size, found.open, found.dead, found.completed_at) == ("test.all.done", 3, 2, 1, None)
    assert database.call(groups.groups_of, parts[0]) == []


@pytest.mark.parametrize(
    ("members", "then", "told"),
    [
        ([{"data": 1}], ("a.b", None), "a mapping with 'type'"),
        ([{"type": "a.b", "key": "k"}], ("a.b", None), "has no key"),
        ([{"type": ""}], ("a.b", None), "the attribute type is required"),
        ([], ("", None), "the attribute type is required"),
        ([], ("a.b", {1}), "what JSON can carry"),
    ],
)
def test_what_is_no_group_is_refused_where_it_is_made(members: list[Any], then: Any, told: str) -> None:
    def wrong(data: Any, ctx: Context) -> None:  # noqa: ARG001
        ctx.emit_group(members, then=then)

    with pytest.raises((TypeError, ValueError), match=told):
        run(handling(wrong, "test.whole", transactional=False).find("test.whole"), None)


def test_a_wrong_event_leaves_nothing_behind_where_the_handler_goes_on() -> None:
    large = "x" * (MAX_DATA_BYTES - 2)

    def goes_on(data: Any, ctx: Context) -> None:  # noqa: ARG001
        for _ in range(20):  # what is refused is not counted
            with pytest.raises(ValueError, match="required"):
                ctx.emit("", large)
        with pytest.raises(TypeError, match="a mapping with 'type'"):
            ctx.emit_group([{"type": "test.part"}, {"data": 1}], then=("a.b", None))
        with pytest.raises(TypeError, match="as a pair"):
            ctx.emit_group([], then="a.b")  # type: ignore[arg-type]
        ctx.emit("test.other", large)

    found = run(handling(goes_on, "test.whole", transactional=False).find("test.whole"), None)

    assert ([each.type for each in found.emitted], found.groups) == (["test.other"], [])


def test_authors_see_the_groups_that_their_handler_makes() -> None:
    def whole(count: int, ctx: Context) -> None:
        ctx.emit("test.other")
        split(count, ctx)

    found = run(handling(whole, "test.whole", transactional=False).find("test.whole"), 2)

    [group] = found.groups
    assert (group.type, group.data) == ("test.all.done", {"of": 2, "exact": 1.1})
    assert [(each.type, each.data) for each in group.members] == [("test.part", 0), ("test.part", 1)]
    assert len(found.emitted) == 3
