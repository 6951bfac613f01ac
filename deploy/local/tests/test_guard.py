"""Nothing outlives the process that started it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.local.fixtures import Eventually
from holdfast.local.guard import NOBODY
from holdfast.local.process import Guarded, log_lines

LAUNCH = Path(__file__).with_name("launch.py")

IDENTITIES = ["as-we-are", "as-nobody"] if os.geteuid() == 0 else ["as-we-are"]
"""PostgreSQL runs neither like root nor in the same way for others, so a root tries both."""

LivingIn = Callable[[], list[str]]


def launch(folder: Path, *arguments: str) -> tuple["subprocess.Popen[str]", dict[str, Any]]:
    command = [sys.executable, str(LAUNCH), str(folder), *arguments]
    launcher = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    with launcher.stdout as said:
        return launcher, json.loads(said.readline())


@pytest.mark.parametrize("identity", IDENTITIES)
def test_servers_run_and_end_when_their_parent_is_killed(
    folder: Path, identity: str, living_in: LivingIn, eventually: Eventually
) -> None:
    uid = os.geteuid()
    if identity == "as-nobody":
        uid = NOBODY
        os.chown(folder, NOBODY, NOBODY)
    launcher, told = launch(folder, identity)
    assert (told["uid"], told["answer"]) == (uid, "42")
    assert len(living_in()) > len(told["pids"])

    launcher.kill()
    launcher.wait()

    eventually(lambda: not living_in(), message="left behind", timeout_seconds=15)


def test_a_program_ends_when_its_guard_is_killed(folder: Path, living_in: LivingIn, eventually: Eventually) -> None:
    program = Guarded("program", log=folder / "log")
    program.start(["/bin/sh", "-c", f"cd {folder}; exec sleep 300"], os.environ)
    eventually(living_in)
    assert program._guard is not None

    program._guard.kill()

    eventually(lambda: not living_in(), message="left behind")
    eventually(lambda: program.has_died)
    program.stop()


def test_what_a_dead_program_leaves_behind_ends_with_it(
    folder: Path, living_in: LivingIn, eventually: Eventually
) -> None:
    program = Guarded("program", log=folder / "log")
    detached = f"cd {folder}; setsid sleep 300 & setsid sh -c 'sleep 300 & wait' & wait"
    program.start(["/bin/sh", "-c", detached], os.environ)
    eventually(lambda: len(living_in()) >= 4, message="the children did not start")

    program.send(signal.SIGKILL)

    eventually(lambda: not living_in(), message="left behind")
    eventually(lambda: program.has_died)
    program.stop()


def test_a_program_that_was_stopped_has_not_died(folder: Path) -> None:
    program = Guarded("program", log=folder / "log")
    program.start(["/bin/sleep", "300"], os.environ)
    assert program.is_running

    program.stop()

    assert not program.is_running
    assert not program.has_died


def test_a_program_deaf_to_its_stop_signal_is_killed_after_the_grace(folder: Path, eventually: Eventually) -> None:
    program = Guarded("program", log=folder / "log", grace_seconds=0.5)
    program.start(["/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"], os.environ)
    eventually(lambda: "deaf" in program.tail())

    program.stop()

    assert not Path(f"/proc/{program.pid}").exists()


def test_an_unknown_program_is_an_error_and_leaves_nothing(folder: Path, eventually: Eventually) -> None:
    program = Guarded("program", log=folder / "log")

    program.start(["/no/such/program"], os.environ)

    eventually(lambda: not program.is_running)
    assert "/no/such/program" in program.tail()
    program.stop()


def test_a_log_line_that_is_being_written_and_what_libpq_says_are_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('{"message": "one"}\nFATAL:  terminating connection due to administrator command\n{"mess')
    assert log_lines(log) == [{"message": "one"}]

    log.write_text("Traceback\n")
    with pytest.raises(json.JSONDecodeError):
        log_lines(log)
