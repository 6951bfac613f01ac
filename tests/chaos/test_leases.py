"""Workers that are late: what a lease allows, and what it refuses."""

from collections.abc import Callable

import pytest
from tests.chaos.distant import Distant, wake
from tests.chaos.outside_service import OutsideService
from tests.chaos.producers import Producers, event
from tests.chaos.proxy import REPLY, Step
from tests.chaos.stacks import LEASE_SECONDS, Rows, fill, held_lock, ring

from holdfast.local.fixtures import Eventually
from holdfast.local.stack import Stack

pytestmark = pytest.mark.xdist_group("chaos")

COMMIT = b"COMMIT\0"

LOST = "holdfast_lost_leases_total"

LOCK = 7


def test_r06_a_worker_paused_past_its_lease_is_refused_when_it_comes_back(
    stack: Stack, rows: Rows, distant: Distant, eventually: Eventually, assert_invariant: Callable[[], None]
) -> None:
    lost_before = distant.processor.metric(LOST)
    [event_id] = fill(stack.database_url, 1, "chaos.plain")
    claiming = distant.database.stall_at(Step(REPLY, event_id.encode()), Step(REPLY, COMMIT))
    ring(stack, [event_id])
    eventually(lambda: claiming.is_sprung, message="the claim is committed and its worker not told")

    distant.pause()
    distant.database.resume()
    wake(stack.services["processor"])
    eventually(lambda: rows.state(event_id) == "processed", message="another worker processes it")
    distant.wake()

    eventually(lambda: distant.processor.metric(LOST) == lost_before + 1, message="the zombie is told that it is late")
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


def test_r08_a_handler_whose_heartbeats_do_not_get_through_is_told_to_stop(
    stack: Stack, rows: Rows, distant: Distant, eventually: Eventually, assert_invariant: Callable[[], None]
) -> None:
    lost_before = distant.processor.metric(LOST)
    with OutsideService() as service:
        [event_id] = fill(stack.database_url, 1, "chaos.outside", {"url": service.url})
        ring(stack, [event_id])
        eventually(lambda: service.was_asked("do", attempt=1), message="the handler runs")
        eventually(lambda: leases_since_claim(rows, event_id) > 1.5, message="a lease has passed")
        with_heartbeats = rows.standing(event_id)

        distant.database.stall()
        eventually(lambda: service.was_asked("stopped", attempt=1), message="the handler is told to stop")
        wake(stack.services["processor"])
        eventually(lambda: rows.state(event_id) == "processed", message="another attempt completes")
        distant.database.resume()
        eventually(lambda: distant.processor.metric(LOST) == lost_before + 1, message="the first attempt is refused")

    assert with_heartbeats == ("processing", 1, 0)
    assert rows.standing(event_id) == ("processed", 2, 1)
    assert {asked["key"] for asked in service.asked} == {f"{event_id}:outside"}
    assert_invariant()


def leases_since_claim(rows: Rows, event_id: str) -> float:
    [(seconds,)] = rows.query(
        "SELECT extract(epoch FROM now() - min(at)) FROM event_update WHERE event_id = %s AND state = 'processing'",
        event_id,
    )
    return float(seconds) / LEASE_SECONDS
