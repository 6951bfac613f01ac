"""``python -m bench.beside FOLDER``: this checkout beside another one, such as the one before a change.

Both have a stack, started once, and measure the same cases in turns, each first as often as the other. That tells
differences of a few percent which two runs after one another cannot. The other one needs its ``.venv``: ``make setup``.

CPU is told for each unit of the figure, of services and servers that live through a measurement. So it says something of
``ingest`` and ``sustained``, which are rates and start nothing; the other cases start processors, or are no rates.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import cast

__all__ = ["Side"]

HERE = Path(__file__).parents[1]


class Side:
    """A checkout with a stack of its own: see ``bench.one_side``."""

    def __init__(self, checkout: Path, *, seconds: float) -> None:
        command = [str(checkout / ".venv/bin/python"), str(HERE / "bench/one_side.py"), str(seconds)]
        self._process = subprocess.Popen(
            command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def read(self) -> object:
        """Its next answer.

        Raises:
            RuntimeError: it has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the stack of a checkout has ended; see above")
        return json.loads(line)

    def measure(self, case: str) -> tuple[float, float]:
        """A case's figure, and the CPU time of services and servers meanwhile, in seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(case + "\n")
        self._process.stdin.flush()
        figure, spent = cast("list[float]", self.read())
        return figure, spent

    def close(self) -> None:
        """Stop its stack."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> int:
    """Measure, and print each round's figures and the medians of their ratios."""
    parser = argparse.ArgumentParser(prog="python -m bench.beside", description=__doc__)
    parser.add_argument("other", type=Path, help="the other checkout's folder")
    parser.add_argument("--rounds", type=int, default=10, help="rounds; medians count (10)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement (2)")
    parser.add_argument("--cases", default="ingest,processing,sustained", help="names of bench.cases, with commas")
    options = parser.parse_args()
    sides = Side(options.other.resolve(), seconds=options.seconds), Side(HERE, seconds=options.seconds)
    try:
        for each in sides:
            each.read()
        for case in options.cases.split(","):
            _compare(sides, case, rounds=options.rounds, seconds=options.seconds)
    finally:
        for each in sides:
            each.close()
    return 0


def _compare(sides: tuple[Side, Side], case: str, *, rounds: int, seconds: float) -> None:
    for each in sides:
        each.measure(case)  # plans are made, files are cached
    found = [_round(sides, case, is_reversed=bool(number % 2)) for number in range(rounds)]
    rates = sorted(here[0] / other[0] for other, here in found)
    costs = sorted((here[1] / here[0]) / (other[1] / other[0]) for other, here in found)
    line = f"{case}: {_quartiles(rates)} times the figure, {_quartiles(costs)} times the CPU of servers for each"
    medians = ", ".join(
        f"{statistics.median(figures):,.1f}" for figures in zip(*([a[0], b[0]] for a, b in found), strict=True)
    )
    sys.stdout.write(f"{line} (other and here: {medians}; {rounds} rounds of {seconds:g} s)\n")
    sys.stdout.flush()


def _round(
    sides: tuple[Side, Side], case: str, *, is_reversed: bool
) -> tuple[tuple[float, float], tuple[float, float]]:
    if is_reversed:
        here = sides[1].measure(case)
        return sides[0].measure(case), here
    return sides[0].measure(case), sides[1].measure(case)


def _quartiles(ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    sys.exit(main())
