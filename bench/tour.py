"""``python -m bench.tour``: ten questions of an operator, answered over a large history, each in how many seconds.

A stack with a million events and 500 dead letters of five causes; each question is answered by the ``holdfast`` command,
as a process, and in the console, as a browser without script would. A minute is the most that an answer may take.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.tour_desk import Desk, open_stack, prepare
from bench.tour_questions import QUESTIONS, Ask

__all__ = ["LONGEST_SECONDS", "Answered", "answer_all"]

LONGEST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answered:
    """``way``: ``command`` or ``console``; ``is_answered``: whether ``said`` is the answer, and not what went wrong."""

    question: str
    way: str
    said: str
    seconds: float
    is_answered: bool


def answer_all(desk: Desk) -> Iterator[Answered]:
    """Every question both ways, in their order: who replayed what is asked when something has been replayed."""
    for question in QUESTIONS:
        yield _answer(desk, question.text, "command", question.command)
        yield _answer(desk, question.text, "console", question.console)


def _answer(desk: Desk, question: str, way: str, ask: Ask) -> Answered:
    began = time.monotonic()
    try:
        said, is_answered = ask(desk), True
    except Exception as exc:  # noqa: BLE001 (whatever it is: the tour goes on, and says so)
        said, is_answered = f"{type(exc).__name__}: {exc}", False
    return Answered(question, way, said, time.monotonic() - began, is_answered)


def main() -> int:
    """Go on the tour, and print; exit status 1 if a question has no answer within a minute."""
    parser = argparse.ArgumentParser(prog="python -m bench.tour", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="size of the history (1000000)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-tour-"))
    stack = open_stack(folder, options.events, _say)
    failed = 0
    try:
        with Desk(stack) as desk:
            prepare(desk)
            sys.stdout.write("| question | by | s | answer |\n|---|---|---|---|\n")
            for each in answer_all(desk):
                failed += not each.is_answered or each.seconds > LONGEST_SECONDS
                verdict = "" if each.is_answered else "**no answer**: "
                sys.stdout.write(f"| {each.question} | {each.way} | {each.seconds:.1f} | {verdict}{each.said} |\n")
                sys.stdout.flush()
    finally:
        stack.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return int(failed > 0)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
