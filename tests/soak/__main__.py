"""``python -m tests.soak``: one run; exit code 1 on any violation.

With ``--without`` a negative control: something is taken away on purpose, and exit code 1 means that the checker saw nothing.
"""

import argparse
import random
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from .broken import CONTROLS
from .control import run_control
from .figures import table
from .plan import draw_plan, load_plan
from .run import SETTLE_SECONDS, Soak, Verdict

SHOWN = 20
"""Violations that are printed; ``violations.jsonl`` has all."""


def main() -> int:
    """Run and report."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends in order, as with Ctrl-C
    folder = options.history or Path(".holdfast/soak") / f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    if options.without:
        control = CONTROLS[options.without]
        verdict = run_control(control, seed=options.seed, folder=folder, say=_say)
        _report(verdict)
        is_caught = control.is_caught_by(verdict.violations)
        _say(f"without {options.without}: " + ("caught" if is_caught else "NOT caught: the checker is blind"))
        return 0 if is_caught else 1
    seconds = max(60 * options.minutes - SETTLE_SECONDS, 30 * options.minutes)
    plan = load_plan(options.plan) if options.plan else draw_plan(options.seed, seconds)
    soak = Soak(options.seed, seconds, plan, folder, per_second=options.per_second, say=_say)
    verdict = soak.run()
    _report(verdict)
    return 1 if verdict.violations else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="length; the last minute is without faults (10)")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="repeats a run's faults and load")
    parser.add_argument("--plan", type=Path, help="the plan.json of a run, instead of drawing one")
    parser.add_argument("--per-second", type=float, default=15.0, help="events a second (15)")
    parser.add_argument("--history", type=Path, help="folder for the history (.holdfast/soak/<time>)")
    parser.add_argument("--without", choices=sorted(CONTROLS), help="run a negative control")
    return parser


def _report(verdict: Verdict) -> None:
    _say(table(verdict.figures))
    for violation in verdict.violations[:SHOWN]:
        _say(f"{violation.rule}: {violation.about}: {violation.what}")
    if len(verdict.violations) > SHOWN:
        _say(f"… {len(verdict.violations)} in all: {verdict.folder / 'violations.jsonl'}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted: no verdict")
