"""``python -m tests.soak``: one run; exit code 1 on any violation."""

import argparse
import random
import sys
from datetime import UTC, datetime
from pathlib import Path

from .figures import table
from .plan import draw_plan, load_plan
from .run import SETTLE_SECONDS, Soak

SHOWN = 20
"""Violations that are printed; the history has all."""


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="length, of which the last minute is calm (10)")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="repeats a run's faults and load")
    parser.add_argument("--plan", type=Path, help="the plan.json of a run, instead of drawing one")
    parser.add_argument("--per-second", type=float, default=15.0, help="events a second (15)")
    parser.add_argument("--history", type=Path, help="folder for the history (.holdfast/soak/<time>)")
    options = parser.parse_args()
    seconds = max(60 * options.minutes - SETTLE_SECONDS, 30 * options.minutes)
    folder = options.history or Path(".holdfast/soak") / f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    soak = Soak(
        seed=options.seed,
        seconds=seconds,
        plan=load_plan(options.plan) if options.plan else draw_plan(options.seed, seconds),
        folder=folder,
        per_second=options.per_second,
        say=_say,
    )
    verdict = soak.run()
    _say(table(verdict.figures))
    for violation in verdict.violations[:SHOWN]:
        _say(f"{violation.rule}: {violation.about}: {violation.what}")
    return 1 if verdict.violations else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
