"""Revocations: the table, and the copy of it that gateways ask."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from sqlalchemy import text

from holdfast.domain.revocation import KEPT_SECONDS, Revocation, RevocationKind
from holdfast.messaging.live import REVOCATIONS_CHANNEL, revocation_keys
from holdfast.messaging.revocations import EVERYTHING, REVOCATIONS_KEY, RevocationCopy
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database
from holdfast.storage.revocations import (
    delete_revocations,
    expired_revocations,
    newest_seq,
    record_revocation,
    revocations_after,
)

ACTOR = Actor("acme", "abcdefghijkl")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="test", pool_size=8)
    yield made
    made.close()


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as made:
        yield made


@pytest.fixture
def copy(client: "redis.Redis") -> RevocationCopy:
    return RevocationCopy(client)


def revoke(database: Database, *subs: str) -> list[Revocation]:
    made = []
    for sub in subs:
        with database.transaction() as session:
            made.append(record_revocation(session, ACTOR, RevocationKind.SUBJECT, sub))
    return made


def bring_up_to_date(database: Database, copy: RevocationCopy, *, limit: int = 2) -> int:
    with database.transaction() as session:
        return copy.bring_up_to(newest_seq(session), lambda seq: revocations_after(session, seq, limit=limit))


def copied(client: Any) -> dict[str, str]:
    names: dict[str, str] = client.hgetall(REVOCATIONS_KEY)
    return names


def field(sub: str) -> str:
    return revocation_keys("acme", sub=sub, jti="")[1]


# the table


def test_a_revocation_is_kept_with_its_moment_and_an_entry_in_the_audit_log(database: Database) -> None:
    with database.transaction() as session:
        token = record_revocation(session, ACTOR, RevocationKind.TOKEN, "the-one")
        subject = record_revocation(session, ACTOR, RevocationKind.SUBJECT, "👩\u200d👧")

    with database.transaction() as session:
        assert revocations_after(session, 0, limit=10) == [token, subject]
        now = session.execute(text("SELECT extract(epoch FROM now())")).scalar_one()
        logged = session.execute(text("SELECT tenant, actor, action, detail FROM audit_log ORDER BY id")).all()
    assert newest_seq_of(database) == subject.seq
    assert 0 <= now - token.second < 60
    assert [tuple(row) for row in logged] == [
        ("acme", "abcdefghijkl", "revoke_token", {"jti": "the-one"}),
        ("acme", "abcdefghijkl", "revoke_subject", {"sub": "👩\u200d👧"}),
    ]


def test_revoking_again_moves_the_moment_and_makes_no_second_row(database: Database) -> None:
    [first] = revoke(database, "user-1")
    age(database, first, 100)

    [again] = revoke(database, "user-1")

    assert again.seq > first.seq
    assert again.second >= first.second
    with database.transaction() as session:
        assert revocations_after(session, 0, limit=10) == [again]


def test_revocations_at_once_become_visible_in_the_order_of_their_numbers(database: Database) -> None:
    is_done = threading.Event()
    seen: list[list[int]] = []

    def read() -> None:
        while not is_done.is_set():
            with database.transaction() as session:
                seen.append([each.seq for each in revocations_after(session, 0, limit=1000)])

    with ThreadPoolExecutor(5) as pool:
        reading = pool.submit(read)
        list(pool.map(lambda n: revoke(database, *(f"user-{n}-{m}" for m in range(10))), range(4)))
        is_done.set()
        reading.result()

    # Whoever has read a number has read every one before it: a copy that is complete up to it lacks nothing.
    for earlier, later in itertools.pairwise(seen):
        assert later[: len(earlier)] == earlier


def test_what_no_token_can_outlive_is_forgotten_and_the_newest_number_is_not(database: Database) -> None:
    old, older, newest = revoke(database, "a", "b", "c")
    for revocation in (old, older, newest):
        age(database, revocation, KEPT_SECONDS + 1)

    with database.transaction() as session:
        expired = expired_revocations(session, limit=10)
        delete_revocations(session, expired)

    assert [each.name for each in expired] == ["a", "b"]
    assert newest_seq_of(database) == newest.seq


def test_the_table_takes_no_other_kind_and_no_longer_name(database: Database) -> None:
    for values in ("('acme', 'tenant', 'a')", f"('acme', 'token', '{'a' * 256}')", "('acme', 'token', '')"):
        with pytest.raises(Exception, match="ck_token_revocation"), database.transaction() as session:
            session.execute(text(f"INSERT INTO token_revocation (tenant, kind, name) VALUES {values}"))  # noqa: S608


# the copy


def test_an_empty_table_makes_a_complete_copy(database: Database, copy: RevocationCopy, client: Any) -> None:
    assert bring_up_to_date(database, copy) == 0

    assert copied(client) == {"copied": "0"}


def test_a_copy_that_is_up_to_date_costs_one_command(database: Database, copy: RevocationCopy, client: Any) -> None:
    revoke(database, "a", "b", "c")
    assert bring_up_to_date(database, copy) == 3
    client.config_resetstat()

    assert bring_up_to_date(database, copy) == 0

    calls = {name: stats["calls"] for name, stats in client.info("commandstats").items()}
    assert {
        name: count for name, count in calls.items() if name not in ("cmdstat_info", "cmdstat_config|resetstat")
    } == {"cmdstat_hget": 1}


def test_an_emptied_redis_is_filled_again_and_told_in_one_message(
    database: Database, copy: RevocationCopy, client: Any
) -> None:
    revocations = revoke(database, "a", "b", "c", "d", "e")
    bring_up_to_date(database, copy)
    before = copied(client)
    client.flushall()

    with client.pubsub() as listener:
        listener.subscribe(REVOCATIONS_CHANNEL)
        assert listener.get_message(timeout=5)["type"] == "subscribe"
        assert bring_up_to_date(database, copy) == 5
        told = drain(listener)

    assert copied(client) == before
    assert copied(client)[field("a")] == str(revocations[0].second)
    assert told == [EVERYTHING.decode()]


def test_a_redis_that_lost_its_last_moments_gets_what_it_lost(
    database: Database, copy: RevocationCopy, client: Any
) -> None:
    revoke(database, "a")
    bring_up_to_date(database, copy)
    older = copied(client)
    revoke(database, "b")
    bring_up_to_date(database, copy)
    client.delete(REVOCATIONS_KEY)
    client.hset(REVOCATIONS_KEY, mapping=older)  # as after a restart from an older dump

    with client.pubsub() as listener:
        listener.subscribe(REVOCATIONS_CHANNEL)
        assert listener.get_message(timeout=5)["type"] == "subscribe"
        assert bring_up_to_date(database, copy) == 1
        told = drain(listener)

    assert field("b") in copied(client)
    assert told == [field("b")]


def test_a_restored_database_fills_the_copy_again(database: Database, copy: RevocationCopy, client: Any) -> None:
    client.hset(REVOCATIONS_KEY, "copied", 1000)
    [revocation] = revoke(database, "a")

    assert bring_up_to_date(database, copy) == 1

    assert copied(client) == {"copied": str(revocation.seq), field("a"): str(revocation.second)}


@pytest.mark.parametrize("when", ["before the first batch", "between two batches", "after the last batch"])
def test_a_redis_emptied_while_it_is_filled_does_not_pass_for_complete(
    database: Database, copy: RevocationCopy, client: Any, when: str
) -> None:
    revocations = revoke(database, "a", "b", "c")
    batches = [revocations[:2], revocations[2:], []]
    flush_at = ["before the first batch", "between two batches", "after the last batch"].index(when)

    def after(_: int) -> list[Revocation]:
        if len(batches) == 3 - flush_at:
            client.flushall()
        return batches.pop(0)

    copy.bring_up_to(revocations[-1].seq, after)

    assert "copied" not in copied(client)
    assert bring_up_to_date(database, copy) == 3
    assert set(copied(client)) == {"copied", field("a"), field("b"), field("c")}


def test_of_two_fillings_at_once_the_later_one_completes(database: Database, copy: RevocationCopy, client: Any) -> None:
    revocations = revoke(database, "a", "b", "c")
    other = RevocationCopy(client)

    def after(seq: int) -> list[Revocation]:
        if seq == 0:
            bring_up_to_date(database, other)
            client.hdel(REVOCATIONS_KEY, "copied")  # whatever it said, this filling cannot vouch for it any more
        return [each for each in revocations if each.seq > seq]

    copy.bring_up_to(revocations[-1].seq, after)

    assert "copied" not in copied(client)


def test_an_older_moment_does_not_replace_a_newer_one(database: Database, copy: RevocationCopy, client: Any) -> None:
    [old] = revoke(database, "a")
    new = Revocation(seq=old.seq + 1, tenant="acme", kind=old.kind, name="a", second=old.second + 10)

    assert copy.add(new)
    assert copy.add(old)

    assert copied(client) == {field("a"): str(new.second)}


def test_what_is_forgotten_leaves_the_copy(database: Database, copy: RevocationCopy, client: Any) -> None:
    old, new = revoke(database, "a", "b")
    bring_up_to_date(database, copy)

    copy.forget([old])

    assert copied(client) == {"copied": str(new.seq), field("b"): str(new.second)}


def test_adding_says_when_redis_did_not_take_it(database: Database) -> None:
    [revocation] = revoke(database, "a")
    with redis.Redis.from_url("redis://127.0.0.1:1", retry=None) as away:
        assert not RevocationCopy(away).add(revocation)


def newest_seq_of(database: Database) -> int:
    with database.transaction() as session:
        return newest_seq(session)


def age(database: Database, revocation: Revocation, seconds: int) -> None:
    statement = text("UPDATE token_revocation SET revoked_at = now() - make_interval(secs => :s) WHERE seq = :seq")
    with database.transaction() as session:
        session.execute(statement, {"s": seconds, "seq": revocation.seq})


def drain(listener: Any) -> list[str]:
    """What was published before this call."""
    told = []
    while message := listener.get_message(timeout=0.5):
        told.append(message["data"])
    return told
