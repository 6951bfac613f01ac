"""What ends a worker's start: it says why and fails, so that nobody takes it for running."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Launch = Callable[..., Any]


def ending(worker: Any) -> tuple[int, str]:
    """Exit status and output."""
    return worker.process.wait(60), worker.log.read_text()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"HANDLERS": "nowhere:handlers"}, "HOLDFAST_HANDLERS=nowhere:handlers: No module named 'nowhere'"),
        ({"HANDLERS": "wrong:handlers"}, "ZeroDivisionError"),
        ({"LEASE_SECOND": "3"}, "HOLDFAST_LEASE_SECOND is not a setting; did you mean HOLDFAST_LEASE_SECONDS?"),
        ({"DATABASE_URL": "mysql://nowhere/x"}, "DATABASE_URL names 'mysql'"),
    ],
)
def test_a_start_that_can_not_work_fails_and_says_why(launch: Launch, settings: dict[str, str], told: str) -> None:
    status, output = ending(launch(**settings))

    assert status == 1
    assert told in output


def test_two_handlers_for_one_type_are_both_named(launch: Launch) -> None:
    _, output = ending(launch(HANDLERS="twice:handlers"))

    file = Path(__file__).with_name("twice.py")
    assert f"first at {file}:" in output
    assert f"second at {file}:" in output
    assert "Traceback" not in output


def test_installed_packages_are_found_by_their_entry_point(launch: Launch, eventually: Any) -> None:
    worker = launch(HANDLERS="")

    eventually(lambda: worker.has_logged("handlers loaded"), timeout_seconds=60)
    line, *_ = (
        line for line in worker.lines() if line["message"] == "handlers loaded"
    )  # each of its processes says so
    assert line["handlers"]["github-activity"] == ["com.github.*"]
