"""PostgreSQL goes away under load: what was accepted is processed once all the same."""

import threading
from collections.abc import Callable

import pytest
from tests.chaos.load import Load
from tests.chaos.producers import Producers
from tests.chaos.stacks import Rows
from tests.chaos.standing import settle

from holdfast.local.fixtures import Eventually
from holdfast.local.stack import Stack

pytestmark = pytest.mark.xdist_group("chaos-outages")

TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'holdfast-%%'"


def test_r12_postgres_stopped_at_once_under_load_loses_and_doubles_nothing(
    stack: Stack, rows: Rows, producers: Producers, assert_invariant: Callable[[], None], eventually: Eventually
) -> None:
    with Load(stack.ingest_url, stack.api_key, producers, "chaos.working", seconds=0.05) as load:
        eventually(lambda: len(load.accepted) > 50, message="there is load")

        stack.postgres.crash()
        stack.postgres.start()

        before = len(load.accepted)
        eventually(lambda: len(load.accepted) > before + 50, message="events are accepted again")

    settled = settle(rows, load.accepted, eventually)
    assert {row.state for row in settled} == {"processed"}
    assert_invariant()


@pytest.mark.parametrize("seconds", [10, pytest.param(60, marks=pytest.mark.soak)])
def test_r13_connections_killed_every_second_lose_and_double_nothing(
    stack: Stack, rows: Rows, producers: Producers, assert_invariant: Callable[[], None], eventually: Eventually,
    seconds: int,
) -> None:  # fmt: skip
    killed: list[int] = []
    tick = threading.Event()
    with Load(stack.ingest_url, stack.api_key, producers, "chaos.working", seconds=0.05) as load:
        for _ in range(seconds):
            killed.append(len(rows.query(TERMINATE)))
            tick.wait(1)

    assert sum(map(bool, killed)) > seconds / 2, "services came back, and were cut off again"
    settled = settle(rows, load.accepted, eventually)
    assert {row.state for row in settled} == {"processed"}
    assert_invariant()
