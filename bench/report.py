"""Figures as a page of Markdown, and ratios as a file that later runs are held against."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.cases import Comparison
from bench.rounds import Measured, ratio

__all__ = ["fallen", "page", "ratios", "save"]

TOLERATED = 2 / 3
"""A ratio that falls below this part of the recorded one has fallen: machines differ by less."""


def ratios(measured: Mapping[str, Measured], comparisons: Sequence[Comparison]) -> dict[Comparison, float]:
    """Those whose figures were measured; of one that compares with nothing, the figure."""
    found = {}
    for each in comparisons:
        if each.of not in measured:
            continue
        if each.to is None:
            found[each] = measured[each.of].median
        elif each.to in measured:
            found[each] = ratio(measured[each.of], measured[each.to])
    return found


def page(
    measured: Mapping[str, Measured], found: Mapping[Comparison, float], *, machine: str, command: str, rounds: int
) -> str:
    """The figures, and what they say in comparison."""
    figures = "\n".join(_figure(each) for each in measured.values())
    compared = "\n".join(_compared(each, value) for each, value in found.items())
    return f"""Measured with `{command}`: {machine}. {rounds} interleaved rounds; medians. Every server
and the load generator share the machine. Absolute figures drift with it: hold on to the ratios.

| what | median | spread |
|---|---|---|
{figures}

The ratio is the median of the rounds' ratios: both figures of a round come from the same minute.
What is compared with nothing is the figure itself.

| ratio | is | goal | |
|---|---|---|---|
{compared}
"""


def save(found: Mapping[Comparison, float], file: Path) -> None:
    """Record the ratios. A figure that compares with nothing says more of the machine, so it is left out."""
    ratios = {each.name: round(value, 3) for each, value in found.items() if each.to is not None}
    file.write_text(json.dumps(ratios, indent=2) + "\n")


def fallen(found: Mapping[Comparison, float], file: Path) -> list[str]:
    """A sentence for each ratio that is worse by more than a third than the recorded one."""
    recorded = json.loads(file.read_text())
    return [
        f"{each.name} is {value:.3f}; recorded: {recorded[each.name]:.3f}"
        for each, value in found.items()
        if each.name in recorded and _is_worse(each, value, recorded[each.name])
    ]


def _is_worse(comparison: Comparison, value: float, recorded: float) -> bool:
    return value > recorded / TOLERATED if comparison.is_most else value < recorded * TOLERATED


def _figure(measured: Measured) -> str:
    digits = 0 if "/" in measured.case.unit else 1
    return (
        f"| {measured.case.title} | {measured.median:,.{digits}f} {measured.case.unit} | ±{measured.spread / 2:.0%} |"
    )


def _compared(comparison: Comparison, value: float) -> str:
    is_met = value <= comparison.goal if comparison.is_most else value >= comparison.goal
    bound = "≤" if comparison.is_most else "≥"
    return f"| {comparison.name} | {value:.2f} | {bound} {comparison.goal:g} | {'met' if is_met else 'missed'} |"
