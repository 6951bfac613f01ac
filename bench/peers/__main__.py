"""``python -m bench.peers``: measure the peers alone, with a stack of their own."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from bench.peers.cases import cases
from bench.rounds import interleave
from holdfast.local.stack import Stack


def main() -> int:
    """Measure and print a line for each; some ten seconds for each case and round."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="about how long a drain takes (5)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median counts (3)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    try:
        with Stack(folder, say=_say) as stack:
            stack.hold("processor")
            chosen = cases(stack, seconds=options.seconds, say=_say)
            for measured in interleave(chosen, rounds=options.rounds, say=_say).values():
                print(f"{measured.case.name:20} {measured.median:8,.0f} events/s  {measured.case.title}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
