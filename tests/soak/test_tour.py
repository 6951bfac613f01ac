"""The operator's tour: ten questions over a million events and 500 dead letters of five causes, each within a minute."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.lived import DEAD
from bench.tour import LONGEST_SECONDS, answer_all
from bench.tour_desk import Desk, open_stack, prepare
from bench.tour_questions import QUESTIONS

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

EVENTS = int(os.environ.get("HOLDFAST_TOUR", "1000000"))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    stack = open_stack(tmp_path / "stack", EVENTS, lambda line: print(line, file=sys.stderr))  # noqa: T201
    try:
        with Desk(stack) as made:
            prepare(made)
            yield made
    finally:
        stack.stop()


def test_an_operator_finds_every_answer_within_a_minute_by_command_and_in_the_console(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = desk.listed("dead", "groups")
    assert sum(group["count"] for group in groups) == DEAD
    assert len({group["error_type"] for group in groups}) == 5

    answered = list(answer_all(desk))

    with capsys.disabled():
        print(*(f"{each.seconds:5.1f} s  {each.question} ({each.way}): {each.said}" for each in answered), sep="\n")  # noqa: T201
    assert [each for each in answered if not each.is_answered or each.seconds > LONGEST_SECONDS] == []
    assert len(answered) == 2 * len(QUESTIONS)
