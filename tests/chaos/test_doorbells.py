"""Doorbells and producers that repeat themselves, and doorbells that get lost."""

from collections.abc import Callable

import pytest
from tests.chaos.distant import Distant
from tests.chaos.producers import Producers, event
from tests.chaos.proxy import REPLY, Step
from tests.chaos.stacks import Rows, fill, metric, ring

from holdfast.local.fixtures import Eventually
from holdfast.local.stack import Stack

pytestmark = pytest.mark.xdist_group("chaos")

STALE = "holdfast_stale_doorbells_total"


def test_r04_one_identity_sent_fifty_times_at_once_is_one_event(
    producers: Producers, rows: Rows, eventually: Eventually, assert_invariant: Callable[[], None]
) -> None:
    sent = event("chaos.plain", {"amount": 42})

    answers = producers.post_all([sent] * 50, connections=50)
    changed = producers.post({**sent, "data": {"amount": 43}})

    assert {answer.status for answer in answers} == {202}
    assert sorted(answer.body["duplicate"] for answer in answers) == [False] + [True] * 49
    [event_id] = {answer.event_id for answer in answers}
    assert (changed.status, changed.body.get("code")) == (422, "id_conflict")
    eventually(lambda: rows.state(event_id) == "processed", message="it is processed")
    assert rows.effects([event_id]) == 1
    assert_invariant()


def test_r09_a_thousand_copies_of_one_doorbell_have_one_effect(
    stack: Stack, rows: Rows, eventually: Eventually, assert_invariant: Callable[[], None]
) -> None:
    processor = stack.metrics_url("processor")
    before = metric(processor, STALE)
    [event_id] = fill(stack.database_url, 1, "chaos.plain")

    ring(stack, [event_id], copies=1000)

    eventually(lambda: metric(processor, STALE) - before >= 999, message="every copy is answered")
    eventually(lambda: rows.state(event_id) == "processed", message="it is processed")
    assert metric(processor, STALE) - before == 999
    assert rows.standing(event_id) == ("processed", 1, 0)
    assert rows.effects([event_id]) == 1
    assert_invariant()


def test_r11_doorbells_lost_on_their_way_to_a_worker_are_made_good_without_a_restart(
    stack: Stack, rows: Rows, distant: Distant, eventually: Eventually, assert_invariant: Callable[[], None]
) -> None:
    processes = distant.processor.process.pids()
    ids = fill(stack.database_url, 5, "chaos.plain", grace_seconds=3)
    lost = distant.broker.drop_reply(Step(REPLY, ids[0].encode()))

    ring(stack, ids)

    eventually(lambda: lost.is_sprung, message="a reply with doorbells is lost")
    eventually(lambda: rows.count("processed", ids) == 5, timeout_seconds=20, message="all are processed")
    assert distant.processor.process.pids() == processes
    assert rows.effects(ids) == 5
    assert_invariant()
