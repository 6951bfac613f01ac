"""How long an event waits after the SIGKILL of the worker that had it: at most its lease and five seconds more."""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from tests.chaos.load import send
from tests.chaos.producers import Producers
from tests.chaos.stacks import LEASE_SECONDS, Replica, Rows, held_lock
from tests.chaos.standing import history, settle, standing

from holdfast.local.fixtures import Eventually
from holdfast.local.services import is_ready
from holdfast.local.stack import Stack

pytestmark = pytest.mark.xdist_group("chaos-outages")

LOCK = 22

LIMIT_SECONDS = LEASE_SECONDS + 5


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds from a SIGKILL until the event was taken from the dead worker, and until another one had claimed it."""

    recovered: float
    claimed: float


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
def test_an_event_whose_worker_is_killed_is_recovered_within_its_lease_and_five_seconds(
    stack: Stack, rows: Rows, producers: Producers, launch: Callable[..., Replica], capsys: pytest.CaptureFixture[str],
    assert_invariant: Callable[[], None], eventually: Eventually, kills: int,
) -> None:  # fmt: skip
    recoveries: list[Recovery] = []
    other = launch("processor")
    for _ in range(kills):
        if not other.process.is_running:
            other = launch("processor")
        # Whichever is killed, the other one lives: what is measured is recovery, not the restart of a process.
        eventually(lambda: is_ready(stack.metrics_url("processor")), message="the stack's own processor is back")
        recoveries.append(kill_and_measure(stack, rows, producers, eventually))

    with capsys.disabled():
        print(f"\n{table(recoveries)}")  # noqa: T201 (what the run is for)
    assert max(each.recovered for each in recoveries) <= LIMIT_SECONDS
    assert_invariant()


def kill_and_measure(stack: Stack, rows: Rows, producers: Producers, eventually: Eventually) -> Recovery:
    """SIGKILL the worker within a handler, and see the event processed by another one."""
    with held_lock(stack, LOCK):
        [event_id] = send(producers, "chaos.blocked", lock=LOCK)
        eventually(lambda: rows.waiting(LOCK) == 1, message="the handler is at work")
        [leased] = standing(rows, [event_id])
        [(killed_at,)] = rows.query("SELECT extract(epoch FROM clock_timestamp())::float8")
        os.kill(leased.worker, signal.SIGKILL)
        eventually(lambda: len(history(rows, event_id)) >= 4, message="another worker has claimed it")
    [settled] = settle(rows, [event_id], eventually)
    assert (settled.state, settled.attempt, settled.crashes, settled.effects) == ("processed", 2, 1, 1)
    _, _, recovered, claimed, _ = history(rows, event_id)
    return Recovery(recovered.at - killed_at, claimed.at - killed_at)


def table(recoveries: Sequence[Recovery]) -> str:
    """One line a kill, and the longest."""
    lines = [f"{number:>4}  {each.recovered:>11.2f}  {each.claimed:>9.2f}" for number, each in enumerate(recoveries, 1)]
    longest = Recovery(max(each.recovered for each in recoveries), max(each.claimed for each in recoveries))
    return "\n".join(
        [
            f"seconds after SIGKILL, lease {LEASE_SECONDS} s",
            "kill  recovered s  claimed s",
            *lines,
            f" max  {longest.recovered:>11.2f}  {longest.claimed:>9.2f}",
        ]
    )
