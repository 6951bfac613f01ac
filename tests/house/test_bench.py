"""The measuring room: rounds are interleaved, ratios are taken within a round, and a fallen one is told."""

from pathlib import Path

import pytest
from bench.cases import Comparison
from bench.report import fallen, page, ratios, save
from bench.rounds import Case, Measured, interleave, ratio

FASTER = Comparison("mine", "limit", 0.5)
SHORTER = Comparison("mine", "limit", 3, is_most=True)


def measured(name: str, *values: float) -> Measured:
    return Measured(Case(name, f"the {name}", lambda: 0.0), list(values))


def test_every_case_is_measured_once_a_round_in_their_order() -> None:
    order: list[str] = []

    def case(name: str) -> Case:
        def measure() -> float:
            order.append(name)
            return float(len(order))

        return Case(name, name, measure)

    found = interleave([case("limit"), case("mine")], rounds=2, say=lambda _: None)

    assert order == ["limit", "mine", "limit", "mine"]
    assert found["mine"].values == [2.0, 4.0]


def test_a_measurement_that_fails_is_no_figure() -> None:
    def fail() -> float:
        raise RuntimeError("not all were processed")

    with pytest.raises(RuntimeError, match="not all"):
        interleave([Case("mine", "mine", fail)], rounds=1, say=lambda _: None)


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    # The machine was slow in the second round; medians by themselves would say 0.5.
    assert ratio(measured("mine", 50, 10, 80), measured("limit", 100, 20, 100)) == 0.5
    assert ratio(measured("mine", 30, 10, 80), measured("limit", 100, 20, 100)) == 0.5
    assert measured("mine", 90, 100, 110).spread == pytest.approx(0.2)


def test_a_comparison_without_its_peer_is_left_out() -> None:
    figures = {"mine": measured("mine", 10), "limit": measured("limit", 20)}

    found = ratios(figures, [FASTER, Comparison("mine", "peer", 1)])

    assert found == {FASTER: 0.5}
    text = page(figures, found, machine="m", command="make bench", rounds=1)
    assert "| the mine | 10 events/s |" in text
    assert "| mine / limit | 0.50 | ≥ 0.5 | met |" in text


def test_a_goal_may_be_the_figure_s_own() -> None:
    small = Comparison("mine", None, 20, is_most=True)
    figures = {"mine": Measured(Case("mine", "memory of mine", lambda: 0.0, "KiB"), [12.0, 30.0, 14.0])}

    found = ratios(figures, [small, Comparison("other", None, 1)])

    assert found == {small: 14.0}
    text = page(figures, found, machine="m", command="make bench", rounds=3)
    assert "| memory of mine | 14.0 KiB |" in text
    assert "| mine | 14.00 | ≤ 20 | met |" in text
    assert "| mine | 20.10 | ≤ 20 | missed |" in page(figures, {small: 20.1}, machine="m", command="c", rounds=3)


@pytest.mark.parametrize(
    ("comparison", "recorded", "now", "is_fallen"),
    [(FASTER, 0.6, 0.41, False), (FASTER, 0.6, 0.39, True), (SHORTER, 3.0, 4.4, False), (SHORTER, 3.0, 4.6, True)],
)
def test_a_ratio_that_is_worse_by_more_than_a_third_is_told(
    tmp_path: Path, comparison: Comparison, recorded: float, now: float, is_fallen: bool
) -> None:
    save({comparison: recorded}, tmp_path / "ratios.json")

    told = fallen({comparison: now, Comparison("new", "limit", 1): 0.0}, tmp_path / "ratios.json")

    assert told == ([f"mine / limit is {now:.3f}; recorded: {recorded:.3f}"] if is_fallen else [])


def test_a_figure_that_compares_with_nothing_is_not_recorded(tmp_path: Path) -> None:
    recorded = tmp_path / "ratios.json"

    save({FASTER: 0.5, Comparison("memory", None, 20, is_most=True): 12.0}, recorded)

    assert "memory" not in recorded.read_text()
    assert fallen({Comparison("memory", None, 20, is_most=True): 90.0}, recorded) == []
