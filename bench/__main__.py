"""``python -m bench``: measure in interleaved rounds, and print (or write) a page of Markdown."""

import argparse
import platform
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from bench.cases import COMPARISONS, cases
from bench.report import fallen, page, ratios, save
from bench.rounds import interleave
from holdfast.local.stack import Stack

HERE = Path(__file__).parent

RECORDED = HERE / "ratios.json"


def main() -> int:
    """Run everything with a stack of its own; half a minute a round. Exit status 1 if ``--check`` finds a ratio fallen."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    stack = Stack(folder, settings={"HOLDFAST_HANDLERS": "handlers:handlers"}, python_path=str(HERE), say=_say)
    try:
        stack.start()
        chosen = [case for case in cases(stack, seconds=options.seconds) if options.only in case.name]
        if options.peers:
            from bench.peers.cases import cases as peers  # its environment is made when it is wanted

            chosen += peers(stack, seconds=options.seconds, say=_say)
        measured = interleave(chosen, rounds=options.rounds, say=_say)
    finally:
        stack.stop()
        shutil.rmtree(folder, ignore_errors=True)
    found = ratios(measured, COMPARISONS)
    machine = f"{platform.machine()}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"
    command = "make bench" + (" PEERS=1" if options.peers else "")
    text = page(measured, found, machine=machine, command=command, rounds=options.rounds)
    sys.stdout.write(text)
    if options.write:
        options.write.write_text(text)
    if options.record:
        save(found, RECORDED)
    lost = fallen(found, RECORDED) if options.check else []
    sys.stderr.writelines(f"fallen by more than a third: {each}\n" for each in lost)
    return 1 if lost else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement (5)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians count (3)")
    parser.add_argument("--only", default="", help="measure the cases with this in their names")
    parser.add_argument("--peers", action="store_true", help="measure other job systems beside Holdfast")
    parser.add_argument("--write", type=Path, help="write the page to this file as well")
    parser.add_argument("--record", action="store_true", help="keep the ratios in bench/ratios.json")
    parser.add_argument("--check", action="store_true", help="fail when a ratio has fallen by more than a third")
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
