"""When what died is started again."""

from holdfast.runtime.restarts import Restarts


def test_a_death_is_told_once_and_due_after_its_wait() -> None:
    policy = Restarts(0.5, 4.0)
    policy.note_running(0.0)

    assert policy.note_death(10.0) == 0.5
    assert policy.note_death(10.2) is None
    assert [policy.is_due(10.4), policy.is_due(10.5)] == [False, True]


def test_what_keeps_dying_waits_twice_as_long_each_time_up_to_a_cap() -> None:
    policy = Restarts(0.5, 4.0)
    waits = []

    for death in range(6):
        policy.note_running(float(death))
        waits.append(policy.note_death(death + 0.5))

    assert waits == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_what_has_lived_for_a_while_is_started_again_soon() -> None:
    policy = Restarts(0.5, 4.0)
    for death in range(4):
        policy.note_running(float(death))
        policy.note_death(death + 0.5)

    policy.note_running(10.0)
    policy.note_running(18.1)

    assert policy.note_death(20.0) == 0.5


def test_what_was_just_started_is_not_due_again() -> None:
    policy = Restarts(0.5, 4.0)
    policy.note_running(0.0)
    policy.note_death(1.0)

    policy.note_running(2.0)

    assert not policy.is_due(100.0)
