"""Rounds that are interleaved: limit, peer, Holdfast, limit, … so that a machine that drifts does so under all of them."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["Case", "Measured", "interleave", "ratio"]


@dataclass(frozen=True, slots=True)
class Case:
    """Something that is measured once a round. ``name`` is short and stable: recorded figures are found by it."""

    name: str
    title: str
    measure: Callable[[], float]
    unit: str = "events/s"


@dataclass(frozen=True, slots=True)
class Measured:
    """The values of a case, one for each round."""

    case: Case
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Of all rounds."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Largest minus smallest value, as a part of the median: what a comparison with other runs cannot tell apart."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0


def interleave(cases: Sequence[Case], *, rounds: int, say: Callable[[str], object]) -> dict[str, Measured]:
    """Measure every case once a round, in their order; what was measured, by the cases' names.

    Raises:
        Exception: whatever a measurement raises; a round that fails is no figure.
    """
    measured = {case.name: Measured(case) for case in cases}
    for number in range(1, rounds + 1):
        for case in cases:
            value = case.measure()
            measured[case.name].values.append(value)
            say(f"round {number} of {rounds}  {case.title}: {value:,.1f} {case.unit}")
    return measured


def ratio(measured: Measured, other: Measured) -> float:
    """The median of the rounds' ratios: both values of a round come from the same minute."""
    return statistics.median(mine / theirs for mine, theirs in zip(measured.values, other.values, strict=True))
