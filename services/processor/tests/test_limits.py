"""Limits hold over all processes, whatever is killed; and nobody else pays for the events that wait for them."""

import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from holdfast.domain.event import Doorbell
from holdfast.domain.transitions import Completion, settle
from holdfast.local.fixtures import Eventually
from holdfast.processor import Concurrency, Context, Handlers, Rate
from holdfast.storage import Session, lifecycle, limits, waiting
from holdfast.storage.database import Database

Start = Callable[..., Any]

RUN = "CREATE TABLE run (event_id uuid, type text, attempt int, pid int, began timestamptz, ended timestamptz)"

MOST, STARTS, PER = 4, 12, 2.0
"""As ``flow_handlers`` declares them."""

FLOW = {"HANDLERS": "flow_handlers:handlers", "LEASE_SECONDS": "2", "PROCESSOR_THREADS": "6"}


@pytest.fixture
def stored(make_stored: Callable[[Database], Any], database: Database) -> Any:
    made = make_stored(database)
    made.run(RUN)
    return made


def most_at_once(runs: Sequence[Any], killed: dict[int, datetime]) -> int:
    """How many overlapped: one that was killed ended when its process did."""
    edges = []
    for each in runs:
        ended = each.ended or killed[each.pid]
        edges += [(each.began, 1), (ended, -1)]
    now = most = 0
    for _, step in sorted(edges):
        now += step
        most = max(most, now)
    return most


def most_starts(runs: Sequence[Any], window: timedelta) -> int:
    """The most starts within any window of this length."""
    began: list[datetime] = sorted(each.began for each in runs)
    return max(sum(first <= each < first + window for each in began) for first in began)


def has_processed(stored: Any, count: int) -> bool:
    return bool(stored.count("processed") >= count)


def kill_one(workers: Sequence[Any], killed: dict[int, datetime], draw: random.Random) -> None:
    """The process of a worker that runs handlers; its supervisor starts another one."""
    try:
        pid = draw.choice(workers).pid_of_worker()
        os.kill(pid, signal.SIGKILL)
    except (IndexError, ProcessLookupError):
        return
    killed[pid] = datetime.now(UTC)


@pytest.mark.parametrize("seed", [1])
def test_no_more_run_at_once_than_may_over_three_processors_that_are_killed(
    start: Start, stored: Any, eventually: Eventually, seed: int
) -> None:
    workers = [start(**FLOW) for _ in range(3)]
    draw, killed = random.Random(seed), dict[int, datetime]()
    count = 100

    stored.record_many("flow.limited", count, 0.15)
    deadline = time.monotonic() + 120
    while stored.count("processed") < count and time.monotonic() < deadline:
        kill_one(workers, killed, draw)
        done = stored.count("processed")
        eventually(partial(has_processed, stored, min(count, done + 8)), timeout_seconds=60)

    runs = stored.rows("SELECT * FROM run")
    assert stored.count("processed") == count, "each once, however often it was begun"
    assert len(killed) >= 5
    assert 1 < most_at_once(runs, killed) <= MOST
    assert stored.scalar("SELECT count(*) FROM processing_state WHERE held_limit IS NOT NULL") == 0


@pytest.mark.parametrize("seed", [2])
def test_no_more_start_within_a_window_than_may_over_three_processors_that_are_killed(
    start: Start, stored: Any, eventually: Eventually, seed: int
) -> None:
    workers = [start(**FLOW) for _ in range(3)]
    draw, killed = random.Random(seed), dict[int, datetime]()
    count = 4 * STARTS

    stored.record_many("flow.rated", count)
    for done in range(STARTS, count + 1, STARTS):
        eventually(partial(has_processed, stored, done), timeout_seconds=60)
        kill_one(workers, killed, draw)

    runs = stored.rows("SELECT * FROM run")
    assert stored.count("processed") == count
    assert 1 < most_starts(runs, timedelta(seconds=PER)) <= STARTS


def test_one_of_a_key_runs_while_those_of_others_do_too(start: Start, stored: Any, eventually: Eventually) -> None:
    for account in ("a", "b"):
        stored.record_many("flow.keyed", 6, {"account": account, "seconds": 0.3})
    start(**FLOW)

    eventually(lambda: stored.count("processed") == 12, timeout_seconds=60)

    rows = stored.rows(
        "SELECT r.*, convert_from(e.data_bytes, 'UTF8') AS data FROM run r JOIN event e ON e.id = r.event_id"
    )
    for account in ("a", "b"):
        assert most_at_once([each for each in rows if f'"{account}"' in each.data], {}) == 1
    assert most_at_once(rows, {}) == 2


def limited(limit: Concurrency | None = None, rate: Rate | None = None) -> Handlers:
    handlers = Handlers()

    @handlers.on("test.limited", name="limited", limit=limit, rate=rate)
    def handle(data: Any, ctx: Context) -> None: ...

    @handlers.on("test.free", name="free")
    def free(data: Any, ctx: Context) -> None: ...

    return handlers


def together(*calls: Callable[[], list[Any]]) -> list[list[Any]]:
    """Call all of them at once."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [each.result() for each in [pool.submit(call) for call in calls]]


def claim(executor: Any, *event_ids: UUID) -> list[Any]:
    return list(executor.claim([Doorbell(each, 1) for each in event_ids]))


def test_events_beyond_a_limit_wait_in_its_line_and_are_called_in_order(
    executor: Callable[..., Any], stored: Any
) -> None:
    made = executor(limited(Concurrency(1)))
    first, second, third, other = *(stored.record("test.limited") for _ in range(3)), stored.record("test.free")

    leases = claim(made, first, second, third, other)

    assert {each.event.id for each in leases} == {first, other}
    assert [stored.row(each).waits_in for each in (second, third)] == ["limit:limited"] * 2
    why = stored.database.call(waiting.why, third)
    assert why.reason == "limit"
    assert why.summary == "1 event of limited runs now, as many as may at once; 1 event ahead of it in line"
    assert made.claim_due(10, is_suspect=False, overdue_seconds=0) == [], "and no search meets them"
    for lease in leases:
        made.run(lease)
    assert stored.row(second).waits_in is None, "the first of the line was called"
    assert stored.row(third).waits_in == "limit:limited"
    [lease] = claim(made, second)
    made.run(lease)
    assert [each.event.id for each in made.claim_due(10, is_suspect=False, overdue_seconds=0)] == [third]


def test_a_newcomer_does_not_overtake_who_waits(executor: Callable[..., Any], stored: Any) -> None:
    made = executor(limited(Concurrency(1)))
    first, second = (stored.record("test.limited") for _ in range(2))
    [lease] = claim(made, first, second)
    with stored.database.transaction() as session:  # it ends, and nobody calls the next one
        lifecycle.apply(session, [settle(first, lease.token, Completion("limited", None, 1))])
    newcomer = stored.record("test.limited")

    assert claim(made, newcomer) == []

    assert stored.row(newcomer).waits_in == "limit:limited"
    assert stored.row(second).waits_in is None, "it was called instead"


def test_two_claims_at_once_count_for_each_other(executor: Callable[..., Any], stored: Any) -> None:
    makers = [executor(limited(Concurrency(3))) for _ in range(4)]
    ids = [stored.record("test.limited") for _ in range(12)]

    found = together(*(lambda made=made, mine=ids[n::4]: claim(made, *mine) for n, made in enumerate(makers)))

    assert sum(map(len, found)) == 3


def test_without_the_lock_two_claims_would_be_too_many(
    executor: Callable[..., Any], stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: what the lock is there for."""
    makers = [executor(limited(Concurrency(1))) for _ in range(6)]
    monkeypatch.setattr(limits, "lock", lambda *_: None)
    counted = limits.running

    def slowly(session: Session, lines: Any) -> Any:
        found = counted(session, lines)
        session.execute(text("SELECT pg_sleep(0.3)"))
        return found

    monkeypatch.setattr(limits, "running", slowly)
    ids = [stored.record("test.limited") for _ in range(6)]

    found = together(*(lambda made=made, mine=each: claim(made, mine) for made, each in zip(makers, ids, strict=True)))

    assert sum(map(len, found)) > 1


def test_starts_come_back_when_their_window_is_over(executor: Callable[..., Any], stored: Any) -> None:
    made = executor(limited(rate=Rate(2, per=60)))
    ids = [stored.record("test.limited") for _ in range(4)]

    leases = claim(made, *ids)

    assert [each.event.id for each in leases] == ids[:2]
    why = stored.database.call(waiting.why, ids[3])
    assert (why.reason, why.facts["ahead"]) == ("rate", 1)
    assert why.summary.startswith("no more events of limited may start until 20")
    assert made.claim_due(10, is_suspect=False, overdue_seconds=0) == []
    assert made.next_wake() - time.monotonic() == pytest.approx(63, abs=2)
    stored.run("UPDATE rate_start SET free_at = now() - interval '1 s'")
    assert len(made.claim_due(10, is_suspect=False, overdue_seconds=0)) == 2


def test_an_event_that_starts_too_late_is_given_back(executor: Callable[..., Any], stored: Any) -> None:
    made = executor(limited(rate=Rate(2, per=1)))
    event_id = stored.record("test.limited")
    [lease] = claim(made, event_id)
    assert lease.starts_by is not None

    made.run(replace(lease, starts_by=time.monotonic() - 0.01))

    row = stored.row(event_id)
    assert (row.state, row.attempt) == ("queued", 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Concurrency(0), "count is a whole number from 1 to 10000, not 0"),
        (lambda: Concurrency(True), "not True"),
        (lambda: Concurrency(1, key="account"), 'key is "tenant", "subject", or a JSON Pointer'),
        (lambda: Rate(1, per=0.5), "per is 1 to 2.592e\\+06 seconds, not 0.5"),
    ],
)
def test_a_limit_that_is_none_is_refused_where_it_is_declared(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        make()


def digest_of(value: str | None) -> str:
    """Nothing of a subject or of data is to be read in a line's name."""
    return "limit:h:" + hashlib.sha256(json.dumps(["t", value]).encode()).hexdigest()[:32]


@pytest.mark.parametrize(
    ("key", "data", "line"),
    [
        (None, {}, "limit:h"),
        ("tenant", {}, "limit:h:t"),
        ("subject", {}, digest_of("s")),
        ("/a/b", {"a": {"b": 7}}, digest_of("7")),
        ("/a/1", {"a": ["x", "y"]}, digest_of("y")),
        ("/a~1b", {"a/b": "z"}, digest_of("z")),
        ("/a", {"a": {"b": 1}}, digest_of(None)),
        ("/a", None, digest_of(None)),
        ("/a", {"a": "\0\ud800"}, digest_of("\0\ud800")),
    ],
)
def test_the_key_of_a_limit(key: str | None, data: Any, line: str) -> None:
    assert Concurrency(1, key=key).line("h", "t", "s", data) == line
