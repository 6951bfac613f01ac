"""Groups whose members ended with a processor of the release before, which counts none of them."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from holdfast.domain.event import NewEvent, NewGroup
from holdfast.domain.transitions import discard
from holdfast.runtime.ids import uuid7
from holdfast.storage import events, lifecycle
from holdfast.storage.database import Database
from holdfast.storage.groups import Group, groups_of, record_group
from holdfast.storage.uncounted import START, Counted, count_uncounted


class Rows:
    """Makes groups, and ends their members as the release before did."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def group(self, size: int) -> tuple[UUID, list[UUID]]:
        """The event that made it, and its members."""
        new = [NewEvent(id=uuid7(), tenant="t", source="/s", ce_id=uuid4().hex, type="part") for _ in range(size + 1)]
        group = NewGroup(id=uuid7(), tenant="t", parent_id=new[0].id, type="all.done")
        with self.database.transaction() as session:
            events.record(session, [new[0], *(replace(each, group_id=group.id) for each in new[1:])], grace_seconds=60)
            record_group(session, group, [each.id for each in new[1:]])
        return new[0].id, [each.id for each in new[1:]]

    def end(self, event_ids: list[UUID], state: str = "processed") -> None:
        with self.database.transaction() as session:
            session.execute(
                text("UPDATE processing_state SET state = :state, finished_at = now() WHERE event_id = ANY (:ids)"),
                {"ids": event_ids, "state": state},
            )

    def of(self, parent_id: UUID) -> Group:
        [group] = self.database.call(groups_of, parent_id)
        return group

    def sweep(self, after: UUID = START, limit: int = 10) -> Counted:
        counted: Counted = self.database.call(count_uncounted, after=after, limit=limit)
        return counted

    def completions(self) -> int:
        with self.database.transaction() as session:
            return int(session.scalar(text("SELECT count(*) FROM event WHERE type = 'all.done'")))


@pytest.fixture
def rows(database_url: str) -> Iterator[Rows]:
    database = Database(database_url, application_name="test", pool_size=8)
    yield Rows(database)
    database.close()


def test_members_that_nobody_counted_are_counted_and_the_group_is_completed(rows: Rows) -> None:
    parent_id, members = rows.group(4)
    rows.end(members[:2])
    rows.end(members[2:3], "dead")

    first = rows.sweep()
    assert (first.members, first.completed, rows.of(parent_id).open) == (3, [], 1)
    rows.end(members[3:], "discarded")
    second = rows.sweep()

    group = rows.of(parent_id)
    assert (group.open, group.processed, group.dead, group.discarded) == (0, 2, 1, 1)
    assert [(each.update.type, each.is_due) for each in second.completed] == [("all.done", True)]
    assert rows.sweep() == Counted(0, [], None), "no group is open"


def test_what_this_release_counts_is_not_counted_again(rows: Rows) -> None:
    parent_id, members = rows.group(3)
    with rows.database.transaction() as session:
        lifecycle.apply(session, [discard(members[0])])
    rows.end(members[1:2])

    assert [rows.sweep().members for _ in range(2)] == [1, 0]
    with rows.database.transaction() as session:
        lifecycle.apply(session, [discard(members[2])])

    assert (rows.of(parent_id).processed, rows.of(parent_id).discarded, rows.completions()) == (1, 2, 1)


def test_a_group_is_completed_once_however_many_sweep(rows: Rows) -> None:
    for _ in range(5):
        parent_id, members = rows.group(6)
        rows.end(members[:5])
        barrier = threading.Barrier(4)

        def sweep(barrier: threading.Barrier = barrier) -> Any:
            barrier.wait(10)
            return rows.sweep(limit=100)

        def settle(barrier: threading.Barrier = barrier, last: UUID = members[5]) -> None:
            barrier.wait(10)
            with rows.database.transaction() as session:
                lifecycle.apply(session, [discard(last)])

        with ThreadPoolExecutor(4) as pool:
            for each in [pool.submit(sweep) for _ in range(3)] + [pool.submit(settle)]:
                each.result(30)
        rows.sweep(limit=100)

        group = rows.of(parent_id)
        assert (group.open, group.processed, group.discarded) == (0, 5, 1)
    assert rows.completions() == 5


def test_a_pass_goes_from_group_to_group_a_few_at_a_time(rows: Rows) -> None:
    made = [rows.group(1) for _ in range(5)]
    rows.end(made[3][1])

    counted, after = [], START
    while (found := rows.sweep(after, limit=2)).last_id is not None:
        counted.append(found.members)
        after = found.last_id

    assert counted == [0, 1, 0]
    assert rows.of(made[3][0]).completed_at is not None
