"""Never lost, never doubled, never stuck: in every interleaving of workers, sweep, poller and crashes.

Each test explores the whole graph of what its actors can do (see ``explorer``) and prints how many interleavings that were.
The negative controls take a guard away and must be caught, so that what finds nothing is known to be able to find something.
"""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import TextClause, text
from tests.interleaving.actors import (
    Actor,
    Attentive,
    Bell,
    Caller,
    CancelSweep,
    Joiner,
    Operator,
    Place,
    Poller,
    Sweep,
    Violation,
    Worker,
    held,
)
from tests.interleaving.explorer import Explorer, Found
from tests.interleaving.grouped import Grouped, GroupSweep, LateGrouped, Member, OfBefore, Replayer
from tests.interleaving.limited import Limited, Unlocked
from tests.interleaving.scheduled import NO_IDENTITY, Hasty, Scheduled, Scheduler
from tests.interleaving.world import World

from holdfast.domain.event import Doorbell, Lease
from holdfast.domain.state import State
from holdfast.domain.transitions import Transition
from holdfast.domain.update import Update
from holdfast.storage import Session, groups, schedules
from holdfast.storage.database import Database

Explore = Callable[..., Found]

pytestmark = pytest.mark.timeout(900)  # under 30 s on a machine of its own; correctness does not depend on speed

EVERY_OUTCOME = ("succeed", "fail", "bury", "release")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, application_name="test", pool_size=10)
    yield database
    database.close()


@pytest.fixture
def explore(
    database: Database, capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]
) -> Explore:
    """Explore what actors can do with some events whose doorbells ring ``doorbells`` times each. Prints and returns it."""

    def run(
        *make: Callable[[Bell], Actor],
        doorbells: int = 2,
        events: int = 1,
        subject: str | None = None,
        before: str | None = None,
        is_reversed: bool = False,
        kind: type[World] = World,
    ) -> Found:
        world, bell = kind(database, event_count=events, subject=subject), Bell()
        if before:
            world.execute(before)
        bell.ring([Doorbell(event_id, 1) for event_id in world.event_ids for _ in range(doorbells)])
        explorer = Explorer(world, bell, [each(bell) for each in make], is_reversed=is_reversed)
        try:
            found = explorer.explore()
        finally:
            explorer.close()
            world.close()
        record_property("explored", str(found))
        with capsys.disabled():
            print(f"\n{found}", file=sys.stderr)  # noqa: T201
        return found

    return run


def worker(name: str, kind: type[Worker] = Worker, rounds: int = 1, **how: Any) -> Callable[[Bell], Actor]:
    return lambda bell: kind(name, bell, rounds=rounds, **how)


def sweep(rounds: int = 2) -> Callable[[Bell], Actor]:
    return lambda bell: Sweep("sweep", bell, rounds=rounds)


def test_no_interleaving_loses_or_doubles_an_event(explore: Explore) -> None:
    found = explore(sweep(), worker("poller", Poller), worker("w1"), worker("w2"))

    assert found.interleavings > 100_000
    assert found.waits > 0


def test_failing_and_interrupted_handlers_lose_nothing(explore: Explore) -> None:
    outcomes = ("succeed", "fail", "release")

    assert explore(sweep(), worker("w1", outcomes=outcomes), worker("w2", outcomes=outcomes)).waits > 0


def test_handlers_outside_the_database_settle_once(explore: Explore) -> None:
    assert explore(sweep(), worker("w1", Caller), worker("w2", Caller)).waits > 0


def test_events_that_are_claimed_and_settled_together_settle_once(explore: Explore) -> None:
    assert explore(sweep(1), worker("j1", Joiner), doorbells=1, events=2).waits > 0
    assert explore(worker("j1", Joiner), worker("w1"), doorbells=1, events=2).interleavings > 1000


def cancelling(rounds: int = 1) -> Callable[[Bell], Actor]:
    return lambda bell: Operator("operator", bell, rounds=rounds)


def test_a_cancel_and_the_end_of_an_attempt_do_not_both_happen(explore: Explore) -> None:
    sweeping = lambda bell: CancelSweep("sweep", bell, rounds=1)  # noqa: E731
    outcomes = ("succeed", "fail", "release")

    assert explore(sweeping, cancelling(), worker("w1", Attentive, outcomes=outcomes)).interleavings > 1000


@pytest.mark.soak
def test_a_cancel_beside_two_workers_ends_an_event_once(explore: Explore) -> None:
    assert explore(sweep(1), cancelling(), worker("w1", Attentive), worker("w2", Attentive), doorbells=1).waits > 0


@pytest.mark.soak
def test_events_that_are_claimed_together_while_others_work_settle_once(explore: Explore) -> None:
    assert explore(sweep(1), worker("j1", Joiner), worker("w1"), doorbells=1, events=2).waits > 0


@pytest.mark.soak
def test_two_that_claim_and_settle_together_take_nothing_twice(explore: Explore) -> None:
    assert explore(sweep(), worker("j1", Joiner), worker("j2", Joiner), doorbells=1, events=2).waits > 0


@pytest.mark.soak
def test_three_workers_with_every_outcome_lose_and_double_nothing(explore: Explore) -> None:
    workers = (worker(f"w{number}", outcomes=EVERY_OUTCOME) for number in range(3))

    assert explore(sweep(), *workers).interleavings > 1_000_000


@pytest.mark.soak
def test_workers_that_go_on_and_a_sweep_that_goes_on_lose_and_double_nothing(explore: Explore) -> None:
    assert explore(sweep(4), worker("w1", rounds=2), worker("w2", rounds=2)).interleavings > 1_000_000


@pytest.mark.soak
def test_of_one_subject_nothing_overtakes(explore: Explore) -> None:
    first, second = (worker(name, is_ordered=True, rounds=2) for name in ("w1", "w2"))

    assert explore(sweep(), first, second, doorbells=1, events=2, subject="s").waits > 0


@pytest.mark.soak
def test_the_order_of_exploring_makes_no_difference(explore: Explore) -> None:
    """Otherwise two states that pass for one would not be, and what follows one of them would be missed."""
    actors = sweep(), worker("w1", outcomes=EVERY_OUTCOME), worker("w2", outcomes=EVERY_OUTCOME)

    forward, backward = explore(*actors), explore(*actors, is_reversed=True)

    assert (len(forward.after), forward.steps, forward.interleavings) == (
        len(backward.after), backward.steps, backward.interleavings
    )  # fmt: skip


class Careless(Worker):
    """Does not look at its token when it locks the row."""

    def hold(self, session: Session, place: Place, _: int) -> Place:
        lock = text("SELECT FROM processing_state WHERE event_id = :event_id FOR NO KEY UPDATE")
        session.execute(lock, {"event_id": held(place).event.id})
        return replace(place, step="write_effect")

    def _settled(self, session: Session, updates: list[Update], place: Place) -> Place:
        return super()._settled(session, updates, place) if updates else replace(place, step="give_up")


class Unfenced(Worker):
    """Settles without its token."""

    def settling(self, lease: Lease) -> Transition:
        return replace(super().settling(lease), expected_token=None)


class JoinerUnfenced(Joiner):
    """Settles all of them without their tokens."""

    def settling(self, lease: Lease) -> Transition:
        return replace(super().settling(lease), expected_token=None)


class CarelessAndUnfenced(Careless, Unfenced):
    """Neither of the two."""


class FailingUnfenced(Worker):
    """Records its failure without its token."""

    def failing(self, lease: Lease) -> Transition:
        return replace(super().failing(lease), expected_token=None)


class CancelsUnfenced(Attentive):
    """Cancels without its token."""

    def cancelling(self, lease: Lease) -> Transition:
        return replace(super().cancelling(lease), expected_token=None)


class Deaf(Careless):
    """Commits its effects whether it could settle or not."""

    def _settled(self, session: Session, updates: list[Update], place: Place) -> Place:  # noqa: ARG002
        return replace(place, step="commit")


class ByIdAlone(CarelessAndUnfenced):
    """Completes whatever has the id: no lease, no state. What is left is the log."""

    unseen = frozenset()  # where the log refuses the row, the statement ends the transaction

    def settling(self, lease: Lease) -> Transition:
        return replace(super().settling(lease), from_states=frozenset({State.PROCESSING, State.PROCESSED}))

    def _check_own(self, updates: list[Update], place: Place) -> None:
        """It does not mind whose lease it was."""


UNFENCED_LOG = "ALTER TABLE processed_event_log ALTER lease_token DROP NOT NULL"
ENDLESS_LOG = UNFENCED_LOG + "; ALTER TABLE processed_event_log DROP CONSTRAINT pk_processed_event_log"


@pytest.mark.soak
@pytest.mark.parametrize("kind", [Careless, Unfenced])
def test_one_of_the_two_looks_at_the_token_is_enough(explore: Explore, kind: type[Worker]) -> None:
    explore(sweep(), worker("w1", kind), worker("w2", kind), before=UNFENCED_LOG)


def test_the_log_alone_keeps_effects_single(explore: Explore) -> None:
    explore(sweep(), worker("w1", ByIdAlone), worker("w2", ByIdAlone), before=UNFENCED_LOG)


@pytest.mark.parametrize(
    ("kind", "how", "before", "violation"),
    [
        (CarelessAndUnfenced, {}, UNFENCED_LOG, "claimed version . and moved the event to"),
        pytest.param(
            FailingUnfenced, {"outcomes": ("fail",)}, None, "claimed version . and moved the event to",
            marks=pytest.mark.soak,
        ),
        pytest.param(Deaf, {}, None, "queued with 0 rows in the log and 1 sets of effects", marks=pytest.mark.soak),
        pytest.param(
            ByIdAlone, {}, ENDLESS_LOG, "processed with 2 rows in the log and 2 sets of effects", marks=pytest.mark.soak
        ),
    ],
    ids=["no token", "no token after a failure", "no answer", "no log"],
)  # fmt: skip
def test_a_missing_guard_is_found(
    explore: Explore, kind: type[Worker], how: dict[str, Any], before: str | None, violation: str
) -> None:
    with pytest.raises(Violation, match=violation):
        explore(sweep(), worker("w1", kind, **how), worker("w2", kind, **how), before=before)


def test_no_interleaving_runs_more_than_a_limit_allows(explore: Explore) -> None:
    found = explore(worker("w1", Limited), worker("w2", Limited), doorbells=1, events=2)

    assert found.waits > 0
    assert found.interleavings > 100


@pytest.mark.soak
def test_no_sweep_makes_a_limit_run_more(explore: Explore) -> None:
    assert explore(sweep(1), worker("w1", Limited), worker("w2", Limited), doorbells=1, events=2).waits > 0


@pytest.mark.soak
@pytest.mark.timeout(3600)  # a quarter of an hour and more on a busy machine
def test_three_workers_that_go_on_never_run_more_than_a_limit_allows(explore: Explore) -> None:
    workers = (worker(f"w{number}", Limited, outcomes=("succeed", "fail")) for number in range(3))

    assert explore(sweep(), *workers, doorbells=1, events=2).interleavings > 100_000


def test_counting_without_the_lock_is_found(explore: Explore) -> None:
    with pytest.raises(Violation, match="2 events hold a limit of one"):
        explore(worker("w1", Unlocked), worker("w2", Unlocked), doorbells=1, events=2)


@pytest.mark.soak
def test_a_cancel_without_a_token_is_found(explore: Explore) -> None:
    with pytest.raises(Violation, match=r"claimed version . and moved the event to"):
        explore(sweep(), cancelling(), worker("w1", CancelsUnfenced), worker("w2", CancelsUnfenced))


@pytest.mark.soak
def test_a_missing_token_among_those_that_settle_together_is_found(explore: Explore) -> None:
    with pytest.raises(Violation, match=r"claimed version . and moved the event to"):
        explore(
            sweep(), worker("j1", JoinerUnfenced), worker("j2", JoinerUnfenced), doorbells=1, events=2,
            before=UNFENCED_LOG,
        )  # fmt: skip


GIVEN_UP_NEXT = "UPDATE processing_state SET crashes = 2 WHERE state = 'queued'"
"""Another lost worker is one too many."""


def members(**how: Any) -> Iterator[Callable[[Bell], Actor]]:
    """Two workers of members, of which a group has two."""
    return (worker(name, Member, **how) for name in ("w1", "w2"))


def test_an_event_follows_a_group_once_and_when_all_members_have_ended(explore: Explore) -> None:
    found = explore(*members(), kind=Grouped, doorbells=1, events=2)

    assert found.waits > 0
    assert found.interleavings > 1000


@pytest.mark.soak
def test_members_with_either_end_are_followed_once(explore: Explore) -> None:
    found = explore(*members(outcomes=("succeed", "bury")), kind=Grouped, doorbells=1, events=2)

    assert found.interleavings > 1_000_000


@pytest.mark.soak
@pytest.mark.timeout(3600)  # a quarter of an hour and more on a busy machine
def test_members_that_end_beside_a_sweep_are_followed_once(explore: Explore) -> None:
    sweeping = lambda bell: GroupSweep("sweep", bell, rounds=1)  # noqa: E731

    explore(sweeping, *members(), kind=Grouped, doorbells=1, events=2, before=GIVEN_UP_NEXT)


@pytest.mark.soak
def test_a_member_that_is_replayed_counts_once(explore: Explore) -> None:
    replaying = lambda bell: Replayer("operator", bell, rounds=1)  # noqa: E731
    one, other = worker("w1", Member, rounds=2), worker("w2", Member, outcomes=("bury",))

    explore(replaying, one, other, kind=Grouped, doorbells=1, events=2)


@pytest.mark.soak
@pytest.mark.timeout(3600)  # a quarter of an hour and more on a busy machine
def test_members_that_the_release_before_ended_are_counted_once(explore: Explore) -> None:
    sweeping = lambda bell: GroupSweep("sweep", bell, rounds=1)  # noqa: E731
    before = worker("w1", OfBefore, outcomes=("bury",))

    explore(sweeping, before, worker("w2", Member), kind=LateGrouped, doorbells=1, events=2)


def stale_counts() -> TextClause:
    """Counts a group from what it was when the statement began, whoever has it locked."""
    counts = re.sub(
        r"g\.(\w+) ([-+]) s\.", r"(SELECT o.\1 FROM event_group o WHERE o.id = g.id) \2 s.", str(groups._COUNT)
    )
    assert counts.count("FROM event_group o") == 4
    return text(counts.replace("ORDER BY g.id FOR NO KEY UPDATE", "ORDER BY g.id"))


def test_counting_members_without_locking_their_group_is_found(
    explore: Explore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "_COUNT", stale_counts())

    with pytest.raises(Violation, match="members count as"):
        explore(*members(), kind=Grouped, doorbells=1, events=2)


def scheduler(name: str, kind: type[Scheduler] = Scheduler) -> Callable[[Bell], Actor]:
    return lambda bell: kind(name, bell, rounds=2)


def test_two_schedulers_give_each_tick_one_event(explore: Explore) -> None:
    assert explore(scheduler("s1"), scheduler("s2"), kind=Scheduled).interleavings > 1000


def unlocked() -> TextClause:
    """Takes a schedule whoever has it."""
    statement = str(schedules._TAKE)
    assert "FOR NO KEY UPDATE SKIP LOCKED" in statement
    return text(statement.replace("FOR NO KEY UPDATE SKIP LOCKED", ""))


@pytest.mark.parametrize(
    "is_locked", [pytest.param(True, id="no identity", marks=pytest.mark.soak), pytest.param(False, id="no lock")]
)
def test_the_lock_or_the_identity_of_a_tick_is_enough(
    explore: Explore, monkeypatch: pytest.MonkeyPatch, is_locked: bool
) -> None:
    if not is_locked:
        monkeypatch.setattr(schedules, "_TAKE", unlocked())

    explore(scheduler("s1"), scheduler("s2"), kind=Scheduled, before=NO_IDENTITY if is_locked else None)


def test_a_tick_without_lock_and_identity_is_found_to_have_two_events(
    explore: Explore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "_TAKE", unlocked())

    with pytest.raises(Violation, match="has 2 events"):
        explore(scheduler("s1"), scheduler("s2"), kind=Scheduled, before=NO_IDENTITY)


def test_a_schedule_that_moves_on_before_its_tick_is_recorded_is_found(explore: Explore) -> None:
    with pytest.raises(Violation, match="ticks that are over 0 have an event"):
        explore(scheduler("s1", Hasty), kind=Scheduled)
