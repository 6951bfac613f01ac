"""Backpressure: when events are turned away, and when again accepted."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from holdfast.domain.errors import DatabaseUnavailable
from holdfast.ingest.intake.backpressure import BacklogTooOld, Backpressure, Gates, is_shut
from holdfast.local.fixtures import Eventually, clone_template
from holdfast.local.servers import Postgres, Valkey
from holdfast.runtime.telemetry import Metrics
from holdfast.storage.backlog import Backlog, backlog_of
from holdfast.storage.database import Database

LIMIT_SECONDS = 900


@pytest.mark.parametrize(
    ("was_shut", "age_seconds", "shut"),
    [
        (False, 0, False), (False, 900, False), (False, 900.1, True), (True, 900, True), (True, 450, True),
        (True, 449.9, False), (True, 0, False),
    ],
)  # fmt: skip
def test_the_gate_shuts_above_the_limit_and_opens_below_half(was_shut: bool, age_seconds: float, shut: bool) -> None:
    assert is_shut(was_shut, age_seconds=age_seconds, limit_seconds=LIMIT_SECONDS) is shut


def test_an_age_that_swings_around_the_limit_moves_the_gate_once() -> None:
    ages = iter([899, 901, 899, 901, 898, 905, 451, 899, 449, 899, 451, 900])
    gate = Backpressure(lambda: Backlog(next(ages)), limit_seconds=LIMIT_SECONDS, cache_seconds=0)

    passed = [is_open(gate) for _ in range(12)]

    assert passed == [True] + [False] * 7 + [True] * 4


def is_open(gate: Backpressure) -> bool:
    try:
        gate.check()
    except BacklogTooOld:
        return False
    return True


def test_a_limit_of_zero_asks_nobody_and_lets_everything_through() -> None:
    def measure() -> Backlog:
        raise AssertionError("asked")

    gate = Backpressure(measure, limit_seconds=0)

    assert is_open(gate)


def test_one_request_measures_and_the_others_do_not_wait_for_it() -> None:
    asked, release = threading.Event(), threading.Event()
    calls: list[int] = []

    def measure() -> Backlog:
        calls.append(1)
        asked.set()
        assert release.wait(30)
        return Backlog(1000)

    gate = Backpressure(measure, limit_seconds=LIMIT_SECONDS, cache_seconds=60)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(is_open, gate)
        assert asked.wait(30)
        meanwhile = [is_open(gate) for _ in range(50)]
        release.set()
        assert first.result(30) is False

    assert meanwhile == [True] * 50, "they went by the last answer"
    assert [is_open(gate) for _ in range(50)] == [False] * 50
    assert len(calls) == 1, "an answer serves for as long as it is fresh"


def test_a_database_that_does_not_answer_leaves_the_gate_as_it_is() -> None:
    answers: list[float | None] = [1000, None, None, 100]

    def measure() -> Backlog:
        answer = answers.pop(0)
        if answer is None:
            raise DatabaseUnavailable("away")
        return Backlog(answer)

    gate = Backpressure(measure, limit_seconds=LIMIT_SECONDS, cache_seconds=0)

    assert [is_open(gate) for _ in range(4)] == [False, False, False, True]


def test_a_process_that_nobody_asks_any_more_notices_that_the_backlog_is_worked_off() -> None:
    answers = [1000.0, 1.0]
    gate = Backpressure(lambda: Backlog(answers.pop(0)), limit_seconds=LIMIT_SECONDS, cache_seconds=0)
    gate.look_again()
    assert answers == [1000.0, 1.0], "while the gate is open requests measure"
    assert not is_open(gate)

    gate.look_again()

    assert not gate.is_shut


def test_the_gauge_says_whether_any_tenant_is_turned_away() -> None:
    ages = {"a": 1000.0, "b": 1.0}
    gates = Gates(lambda tenant: Backlog(ages[tenant]), limit_seconds=LIMIT_SECONDS, cache_seconds=0)
    with pytest.raises(BacklogTooOld):
        gates.check("a")
    gates.check("b")

    gates.look_again()
    assert Metrics.turning_away._value.get() == 1
    ages["a"] = 1
    gates.look_again()
    assert Metrics.turning_away._value.get() == 0


def test_a_tenant_may_have_a_limit_of_its_own(limited: Any) -> None:
    made: Database = limited.database
    with made.transaction() as session:
        session.execute(text("INSERT INTO tenant (name, backlog_seconds) VALUES ('patient', 5)"))

    assert made.call(backlog_of, "patient") == (0.0, 5.0)
    assert made.call(backlog_of, "other").limit_seconds is None
    gate = Backpressure(lambda: Backlog(100, 5000.0), limit_seconds=10, cache_seconds=0)
    assert is_open(gate)


def test_retry_after_is_jittered() -> None:
    gate = Backpressure(lambda: Backlog(1000), limit_seconds=LIMIT_SECONDS)
    waits = set()
    for _ in range(200):
        with pytest.raises(BacklogTooOld) as caught:
            gate.check()
        waits.add(caught.value.retry_after_seconds)

    assert min(waits) >= 1
    assert len(waits) > 3


@pytest.fixture(scope="module")
def limited(postgres: Postgres, valkey: Valkey, start_ingest: Any, eventually: Eventually) -> Iterator[Any]:
    name = clone_template(postgres)
    settings = {"HOLDFAST_BACKLOG_LIMIT_SECONDS": "100", "HOLDFAST_INGEST_PROCESSES": "1"}  # each measures for itself
    made = start_ingest(postgres, valkey, database=name, **settings)
    eventually(made.is_ready, timeout_seconds=30)
    yield made
    made.stop()
    postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_suspects_that_wait_for_one_another_turn_nobody_away(
    limited: Any, post_to: Callable[..., httpx.Response], eventually: Eventually
) -> None:
    key = limited.key()
    assert post_to(limited, key).status_code == 202

    def move(values: str) -> None:
        with limited.database.transaction() as session:
            session.execute(text(f"UPDATE processing_state SET {values}"))  # noqa: S608

    move("available_at = now() - interval '150 s'")
    eventually(lambda: post_to(limited, key).status_code == 503, message="the gate shuts")
    move("crashes = 1")

    eventually(lambda: post_to(limited, key).status_code == 202, message="the gate opens")


def test_events_are_turned_away_while_the_backlog_is_too_old_and_nothing_else_is(
    limited: Any, post_to: Callable[..., httpx.Response], eventually: Eventually
) -> None:
    key = limited.key()
    accepted = post_to(limited, key)
    headers = {"Authorization": f"Bearer {key}"}

    def age(seconds: int) -> None:
        with limited.database.transaction() as session:
            session.execute(
                text("UPDATE processing_state SET available_at = now() - make_interval(secs => :s)"), {"s": seconds}
            )

    def stored() -> Any:
        with limited.database.transaction() as session:
            return session.scalar(text("SELECT count(*) FROM event"))

    age(150)
    eventually(lambda: post_to(limited, key).status_code == 503, message="the gate shuts")
    before = stored()
    refused = post_to(limited, key)
    looked_at = httpx.get(f"{limited.url}{accepted.headers['Location']}", headers=headers).status_code
    listed = httpx.get(f"{limited.url}/v1/events", headers=headers).status_code

    assert (refused.json()["code"], refused.headers["Content-Type"]) == ("backlog", "application/problem+json")
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    assert (looked_at, listed, limited.is_ready()) == (200, 200, True)
    assert stored() == before
    assert post_to(limited, "hf_none").status_code == 401
    age(10)
    eventually(lambda: post_to(limited, key).status_code == 202, message="the gate opens")
    told = [line["message"] for line in limited.lines() if "backlog" in line["message"]][-2:]
    assert told == ["backlog too old; events are turned away", "backlog worked off; events are accepted again"]
