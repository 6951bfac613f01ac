"""Whoever commits at the same moment shares a transaction, and nobody another one's answer or fault."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from holdfast.domain.errors import DatabaseUnavailable
from holdfast.runtime.group_commit import GroupCommit


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(12) as made:
        yield made


class Commits:
    """A commit that waits to be let go, and notes what it was given."""

    def __init__(self, fails_with: Callable[[Sequence[int]], Exception | None] = lambda _: None) -> None:
        self.groups: list[list[int]] = []
        self.gate = threading.Event()
        self.begun = threading.Event()
        self._fails_with = fails_with

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.groups.append(list(items))
        self.begun.set()
        assert self.gate.wait(10)
        if error := self._fails_with(items):
            raise error
        return [item * 10 for item in items]


def _add_together(
    group: GroupCommit[int, int, str], commits: Commits, pool: ThreadPoolExecutor, count: int
) -> list[Any]:
    """Let one begin, the others wait, and then all go."""
    answers: list[Future[str]] = [pool.submit(group.add, 1)]
    assert commits.begun.wait(10)
    for number in range(2, count + 1):
        before = len(group._waiting)
        answers.append(pool.submit(group.add, number))
        while len(group._waiting) == before:
            pass
    commits.gate.set()
    return [each.exception(10) or each.result(10) for each in answers]


def _finish(committed: Sequence[int]) -> list[str]:
    return [str(each) for each in committed]


def test_whoever_waits_is_committed_together_up_to_the_limit_of_a_transaction(pool: ThreadPoolExecutor) -> None:
    commits = Commits()

    answers = _add_together(GroupCommit(commits, _finish, weigh=lambda _: 1, most=4), commits, pool, 8)

    assert answers == [str(number * 10) for number in range(1, 9)]
    assert commits.groups == [[1], [2, 3, 4, 5], [6, 7, 8]]


def test_an_item_that_is_larger_than_a_transaction_may_be_goes_alone(pool: ThreadPoolExecutor) -> None:
    commits = Commits()

    answers = _add_together(GroupCommit(commits, _finish, weigh=lambda item: item, most=6), commits, pool, 7)

    assert answers == [str(number * 10) for number in range(1, 8)]
    assert commits.groups == [[1], [2, 3], [4], [5], [6], [7]]


def test_after_a_failure_each_is_tried_alone_and_only_the_culprit_is_told(pool: ThreadPoolExecutor) -> None:
    commits = Commits(lambda items: ValueError("three") if 3 in items else None)

    answers = _add_together(GroupCommit(commits, _finish, weigh=lambda _: 1, most=9), commits, pool, 5)

    assert [str(answer) for answer in answers] == ["10", "20", "three", "40", "50"]
    assert sorted(commits.groups) == [[1], [2], [2, 3, 4, 5], [3], [4], [5]]


def test_an_outage_is_everybodys_and_nobody_tries_alone(pool: ThreadPoolExecutor) -> None:
    commits = Commits(lambda items: DatabaseUnavailable("away") if len(items) > 1 else None)

    answers = _add_together(GroupCommit(commits, _finish, weigh=lambda _: 1, most=9), commits, pool, 4)

    assert [str(answer) for answer in answers] == ["10", "away", "away", "away"]
    assert len({id(answer) for answer in answers[1:]}) == 3, "an exception is raised in one thread only"
    assert commits.groups == [[1], [2, 3, 4]]


def test_the_next_ones_commit_while_the_ones_before_are_told(pool: ThreadPoolExecutor) -> None:
    commits, is_finishing, may_finish = Commits(), threading.Event(), threading.Event()
    commits.gate.set()

    def finish(committed: Sequence[int]) -> list[str]:
        if committed[0] == 10:
            is_finishing.set()
            assert may_finish.wait(10)
        return _finish(committed)

    group: GroupCommit[int, int, str] = GroupCommit(commits, finish, weigh=lambda _: 1, most=9)
    first = pool.submit(group.add, 1)
    assert is_finishing.wait(10)

    assert group.add(2) == "20"

    assert not first.done()
    may_finish.set()
    assert first.result(10) == "10"
