"""Handlers that take their process with them, or that never succeed."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import httpx
import pytest
from tests.chaos.load import send
from tests.chaos.producers import Producers
from tests.chaos.stacks import Rows
from tests.chaos.standing import Moment, history, settle, standing

from holdfast.client import Client
from holdfast.local.fixtures import Eventually
from holdfast.local.stack import Stack

pytestmark = pytest.mark.xdist_group("chaos-outages")

CEILINGS = {1: 0.4, 2: 0.8, 3: 0.8}
"""Longest wait in seconds after each attempt of ``chaos.failing``."""

LATE_SECONDS = 15
"""A due event may wait that long for its next attempt on a loaded machine; early it never is."""


def test_r14_a_handler_that_ends_its_process_is_dead_after_three_and_its_neighbours_live(
    rows: Rows, producers: Producers, assert_invariant: Callable[[], None], eventually: Eventually
) -> None:
    before = send(producers, "chaos.working", 100, seconds=0.03)
    [poison] = send(producers, "chaos.exit")
    after = send(producers, "chaos.working", 100, seconds=0.03)

    settle(rows, [*before, poison, *after], eventually, seconds=90)

    [dead] = standing(rows, [poison])
    assert (dead.state, dead.error, dead.crashes, dead.attempt, dead.effects) == ("dead", "crash_loop", 3, 3, 0)
    good = standing(rows, [*before, *after])
    assert {row.state for row in good} == {"processed"}
    assert max(row.crashes for row in good) <= 1, (
        "those beside it in its first crash pay once; from then on it is alone"
    )
    assert_invariant()


def test_r15_a_handler_that_always_raises_is_tried_with_jitter_then_dead_and_replayed_after_the_fix(
    stack: Stack, rows: Rows, producers: Producers, assert_invariant: Callable[[], None], eventually: Eventually
) -> None:
    stack.postgres.execute("CREATE TABLE IF NOT EXISTS fix ()", database="holdfast")
    event_ids = send(producers, "chaos.failing", 10)

    tried = settle(rows, event_ids, eventually)

    assert {(row.state, row.attempt, row.effects) for row in tried} == {("dead", 4, 0)}
    waits = [wait for event_id in event_ids for wait in checked_waits(history(rows, event_id))]
    assert len(waits) == len(event_ids) * len(CEILINGS)
    assert len(set(waits)) > len(waits) / 2, "each wait is drawn anew"
    assert errors(rows, event_ids) == {event_id: [1, 2, 3, 4] for event_id in event_ids}

    stack.postgres.execute("INSERT INTO fix DEFAULT VALUES", database="holdfast")
    send_round_again(stack, event_ids)

    replayed = settle(rows, event_ids, eventually)
    assert {(row.state, row.attempt, row.effects) for row in replayed} == {("processed", 1, 1)}
    assert errors(rows, event_ids) == {event_id: [1, 2, 3, 4] for event_id in event_ids}, "its errors are kept"
    assert told(stack, event_ids[0]) == [
        "queued", *["processing", "failed"] * 3, "processing", "dead", "queued", "processing", "processed",
    ]  # fmt: skip
    assert_invariant()


def checked_waits(moments: Sequence[Moment]) -> list[float]:
    """The waits in seconds after failed attempts: within their bands, told truly, and kept."""
    waits = []
    for failed, claimed in pairwise(moments):
        if failed.state == "failed":
            wait = failed.detail["retry_in_seconds"]  # in whole milliseconds
            assert 0 <= wait <= CEILINGS[failed.attempt]
            assert wait - 0.001 <= claimed.at - failed.at < wait + LATE_SECONDS
            waits.append(wait)
    return waits


def errors(rows: Rows, event_ids: list[str]) -> dict[str, list[int]]:
    """Attempts of each event that have a recorded error."""
    attempts = rows.query(
        "SELECT event_id::text, array_agg(attempt ORDER BY id) FROM attempt_error WHERE event_id = ANY (%s::uuid[])"
        " GROUP BY event_id",
        event_ids,
    )
    return dict(attempts)


def send_round_again(stack: Stack, event_ids: list[str]) -> None:
    """Replay dead letters, as an operator would."""
    for event_id in event_ids:
        answer = httpx.post(
            f"{stack.ingest_url}/v1/events/{event_id}/replay",
            headers={"Authorization": f"Bearer {stack.api_key}"},
            timeout=30,
        )
        assert answer.is_success, answer.text


def told(stack: Stack, event_id: str) -> list[str]:
    """The states in an event's timeline, as a producer sees it."""
    with Client(stack.ingest_url, stack.api_key) as client:
        return [entry.state for entry in client.get(event_id, include=["timeline"]).timeline or ()]
