"""What ends a worker's start: it says why and fails, so that nobody takes it for running."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.processor.worker.ending import BROKEN
from holdfast.runtime.refusal import CANNOT_START

Launch = Callable[..., Any]

ENDED = "worker process ended; starting it again"


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

    assert status == CANNOT_START
    assert told in output
    assert ENDED not in output, "starting it again is of no use"


WRONG_MODULES = {
    "error": ("import json\n\nx = json.nowhere\n", 3, "AttributeError: module 'json' has no attribute 'nowhere'"),
    "missing": ("import nowhere_at_all\n", 1, "ModuleNotFoundError: No module named 'nowhere_at_all'"),
    "exit": ("import sys\n\nsys.exit(0)\n", 3, "SystemExit: 0"),
    "interrupt": ("raise KeyboardInterrupt\n", 1, "KeyboardInterrupt"),
    "syntax": ("def f(:\n", 1, "SyntaxError: invalid syntax"),
}


@pytest.mark.parametrize("name", WRONG_MODULES)
def test_an_error_in_the_authors_module_is_told_with_its_own_frames_alone(
    launch: Launch, tmp_path: Path, name: str
) -> None:
    source, line, told = WRONG_MODULES[name]
    file = tmp_path / f"wrong_{name}.py"
    file.write_text(source)

    status, output = ending(launch(HANDLERS=f"wrong_{name}:handlers"))

    assert status == CANNOT_START
    assert f'File "{file}", line {line}' in output
    assert told in output
    assert ENDED not in output
    assert "importlib" not in output
    assert "discovery.py" not in output


def test_an_import_that_hangs_is_told_with_its_place_and_ends_when_it_is_told_to(
    launch: Launch, tmp_path: Path, eventually: Any
) -> None:
    file = tmp_path / "hanging.py"
    file.write_text("import threading\n\nthreading.Event().wait()\n")
    worker = launch(HANDLERS="hanging:handlers")

    eventually(lambda: worker.has_logged("the handlers are still being imported"), timeout_seconds=40)
    [place, *_] = [line["place"] for line in worker.lines() if "place" in line]
    worker.process.terminate()

    assert "threading.py:" in place
    assert worker.process.wait(10) == 0


GIVING_UP = """
import os
from holdfast.processor.worker import importing
from holdfast.processor.worker.ending import Ending
from holdfast.runtime import logging

logging.configure(service="test", version="0", log_format="json", level="info")
importing.LIMIT_SECONDS = 0.2
importing.import_handlers("endless:handlers", Ending(os.getppid()))
"""


@pytest.mark.parametrize(
    "source", ["while True: ...", "while True:\n  try:\n    while True: ...\n  except Exception: ..."]
)
def test_an_import_that_takes_too_long_ends_its_process(tmp_path: Path, source: str) -> None:
    (tmp_path / "endless.py").write_text(f"{source}\n")

    done = subprocess.run(
        [sys.executable, "-c", GIVING_UP], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == BROKEN
    assert "importing the handlers took too long" in done.stdout
    assert f"{tmp_path / 'endless.py'}:" in done.stdout


def test_a_process_that_is_forked_at_import_and_comes_back_is_no_second_worker(
    launch: Launch, tmp_path: Path, eventually: Any
) -> None:
    (tmp_path / "forking.py").write_text("import os\nfrom sample_handlers import handlers\nos.fork()\n")
    worker = launch(HANDLERS="forking:handlers")

    eventually(lambda: worker.has_logged("handlers loaded"), timeout_seconds=60)
    eventually(
        lambda: worker.has_logged("a process that a handler forked came back from the handler, and was ended"),
        timeout_seconds=10,
    )
    pids = [line["pid"] for line in worker.lines() if line["message"] == "handlers loaded" and "pid" in line]
    assert len(pids) == len(set(pids))


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
    assert line["handlers"]["demo-gift-card"] == ["shop.giftcard.bought"]
