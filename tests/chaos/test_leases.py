"""Workers that are late: what a lease allows, and what it refuses."""

import signal
from collections.abc import Callable

import pytest
from tests.chaos.producers import Producers, event
from tests.chaos.proxy import REPLY, Proxy, Step
from tests.chaos.stacks import LEASE_SECONDS, Replica, Rows, fill, held_lock, ring, through

from holdfast.local.fixtures import Eventually
from holdfast.local.stack import Stack

pytestmark = pytest.mark.xdist_group("chaos")

COMMIT = b"COMMIT\0"

LOST = "holdfast_lost_leases_total"

LOCK = 7


@pytest.mark.usefixtures("no_processor")
def test_r06_a_worker_paused_past_its_lease_is_refused_when_it_comes_back(
    stack: Stack,
    rows: Rows,
    launch: Callable[..., Replica],
    proxy: Callable[[int], Proxy],
    eventually: Eventually,
    assert_invariant: Callable[[], None],
) -> None:
    database = proxy(stack.postgres.port)
    zombie = launch("processor", DATABASE_URL=through(stack.database_url, database.port))
    [event_id] = fill(stack.database_url, 1, "chaos.plain")
    claiming = database.stall_at(Step(REPLY, event_id.encode()), Step(REPLY, COMMIT))
    ring(stack, [event_id])
    eventually(lambda: claiming.is_sprung, message="the claim is committed and its worker not told")

    zombie.send(signal.SIGSTOP)
    database.resume()
    stack.resume("processor")
    eventually(lambda: rows.state(event_id) == "processed", message="another worker processes it")
    zombie.send(signal.SIGCONT)

    eventually(lambda: zombie.metric(LOST) == 1, message="the zombie is told that it is late")
    assert rows.standing(event_id) == ("processed", 2, 1)
    assert rows.effects([event_id]) == 1
    assert_invariant()


def test_r07_a_transactional_handler_that_outlives_its_lease_is_not_disturbed(
    stack: Stack,
    rows: Rows,
    producers: Producers,
    eventually: Eventually,
    assert_invariant: Callable[[], None],
) -> None:
    with held_lock(stack, LOCK):
        event_id = producers.post(event("chaos.blocked", {"lock": LOCK})).event_id
        eventually(lambda: rows.waiting(LOCK) == 1, message="the handler runs")
        eventually(lambda: leases_since_claim(rows, event_id) > 3, message="three leases have passed")

    eventually(lambda: rows.state(event_id) == "processed", message="it is processed")
    assert [state for state, _ in rows.history(event_id)] == ["queued", "processing", "processed"]
    assert rows.standing(event_id) == ("processed", 1, 0)
    assert rows.effects([event_id]) == 1
    assert_invariant()


def leases_since_claim(rows: Rows, event_id: str) -> float:
    [(seconds,)] = rows.query(
        "SELECT extract(epoch FROM now() - min(at)) FROM event_update WHERE event_id = %s AND state = 'processing'",
        event_id,
    )
    return float(seconds) / LEASE_SECONDS
