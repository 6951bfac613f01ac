"""The plan of a soak."""

from itertools import pairwise
from pathlib import Path

import pytest

from .plan import KILLS, RANDOM, Kind, draw_plan, load_plan, save_plan

MINUTES = 9


def test_a_seed_draws_the_same_plan_again() -> None:
    assert draw_plan(7, 60) == draw_plan(7, 60)
    assert draw_plan(7, 60) != draw_plan(8, 60)


def test_a_ten_minute_run_has_two_hundred_kills() -> None:
    for seed in range(20):
        kills = sum(fault.kind in KILLS for fault in draw_plan(seed, 60 * MINUTES))
        assert kills >= 220, f"seed {seed}"


def test_all_faults_are_over_when_the_time_is() -> None:
    assert all(fault.at + fault.seconds < 60 for fault in draw_plan(3, 60))


def test_a_server_has_one_fault_at_a_time() -> None:
    for target, least in (("postgres", 10), ("redis", 10), ("defaults", 5)):
        faults = [fault for fault in draw_plan(3, 60 * MINUTES) if fault.target == target]
        assert len(faults) > least
        assert all(one.at + one.seconds < two.at for one, two in pairwise(faults))


@pytest.mark.parametrize("kind", Kind)
def test_a_ten_minute_run_has_every_kind_of_fault(kind: Kind) -> None:
    for seed in range(20):
        faults = [fault for fault in draw_plan(seed, 60 * MINUTES) if fault.kind is kind]
        assert len(faults) >= 2, f"seed {seed}"
        assert all((fault.kind, fault.target) in RANDOM.weights for fault in faults)
        assert (min(fault.seconds for fault in faults) > 0) == (kind in RANDOM.lasting)


def test_a_plan_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    plan = draw_plan(5, 60)

    save_plan(tmp_path / "plan.json", plan)

    assert load_plan(tmp_path / "plan.json") == plan
