"""What processes tell each other on the board."""

import os

import pytest

from holdfast.processor.worker.board import MISSING_SECONDS, SUPERVISOR, Board

NOW = 1000.0

LONG_AGO = NOW - MISSING_SECONDS - 1


@pytest.fixture
def board() -> Board:
    """Of a supervisor that is well, and two workers that have said nothing."""
    board = Board(["suspects", "worker-0"])
    board.note_alive(SUPERVISOR, NOW, is_well=True)
    return board


def test_a_process_is_missing_when_it_was_not_well_for_too_long(board: Board) -> None:
    board.note_alive("worker-0", NOW, is_well=True)
    board.note_alive("suspects", LONG_AGO, is_well=True)

    assert board.missing(NOW, since=0.0) == ["suspects"]


def test_a_process_that_runs_and_does_not_work_is_missing_too(board: Board) -> None:
    board.note_alive("worker-0", NOW, is_well=True)
    board.note_alive("suspects", NOW, is_well=False)

    assert board.missing(NOW, since=0.0) == ["suspects"]


def test_the_supervisor_is_missing_as_any_other(board: Board) -> None:
    for name in ("suspects", "worker-0"):
        board.note_alive(name, NOW + MISSING_SECONDS + 1, is_well=True)

    assert board.missing(NOW + MISSING_SECONDS + 1, since=0.0) == [SUPERVISOR]


def test_nobody_is_missing_before_there_was_time_to_start(board: Board) -> None:
    assert board.missing(NOW, since=NOW - MISSING_SECONDS / 2) == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # the child does nothing but write
def test_what_a_forked_process_notes_is_read_by_the_others(board: Board) -> None:
    pid = os.fork()
    if pid == 0:
        board.note_alive("worker-0", NOW, is_well=True)
        board.note_ending("worker-0", NOW + 5)
        os._exit(0)
    os.waitpid(pid, 0)

    assert (board.alive_at("worker-0"), board.ends_at("worker-0")) == (NOW, NOW + 5)
    assert board.ends_at("suspects") == 0, "each has a place of its own"


def test_a_successor_has_said_nothing_yet(board: Board) -> None:
    board.note_alive("worker-0", NOW, is_well=True)
    board.note_ending("worker-0", NOW + 5)

    board.note_started("worker-0")

    assert (board.alive_at("worker-0"), board.ends_at("worker-0")) == (0, 0)
    assert "worker-0" not in board.missing(NOW + 1, since=0.0), "its role has not been without a process for long"
