"""``python -m holdfast.local`` as make calls it, in a folder of its own."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.local.command import PORTS
from holdfast.local.fixtures import Eventually

pytestmark = pytest.mark.xdist_group("local-command")  # the usual ports are wished for: one stack at a time

LivingIn = Callable[[], list[str]]

SECONDS = 90


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "holdfast.local", *arguments]


def call(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*arguments), cwd=folder, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip


def pids(folder: Path) -> dict[str, list[int]]:
    running: dict[str, list[int]] = json.loads((folder / ".holdfast" / "stack.json").read_text())["pids"]
    return running


@pytest.fixture
def up(folder: Path, living_in: LivingIn, eventually: Eventually) -> Iterator["subprocess.CompletedProcess[str]"]:
    yield call(folder, "up")
    call(folder, "down")
    eventually(lambda: not living_in(), message="left behind")


@contextlib.contextmanager
def running(folder: Path, *arguments: str) -> Iterator["tuple[subprocess.Popen[str], Path]"]:
    """``run`` without a terminal, and the file that it prints to."""
    output = folder / "output.txt"
    with output.open("w") as printed:
        process = subprocess.Popen(
            command("run", *arguments), cwd=folder, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed, text=True
        )
    try:
        yield process, output
    finally:
        process.kill()
        process.wait()


def test_up_twice_and_down(
    up: "subprocess.CompletedProcess[str]", folder: Path, living_in: LivingIn, eventually: Eventually
) -> None:
    described = json.loads((folder / ".holdfast" / "stack.json").read_text())
    assert up.returncode == 0, up.stdout
    assert described["ingest_url"] in up.stdout

    again = call(folder, "up")
    run = call(folder, "run")

    assert (again.returncode, "runs already" in again.stdout, "make down" in again.stdout) == (0, True, True)
    assert (run.returncode, "make down" in run.stdout) == (1, True)
    assert json.loads((folder / ".holdfast" / "stack.json").read_text())["pids"] == described["pids"]

    down = call(folder, "down")

    assert (down.returncode, "stopped" in down.stdout) == (0, True)
    assert not (folder / ".holdfast" / "stack.json").exists()
    eventually(lambda: not living_in(), message="left behind")
    assert call(folder, "down").stdout.strip() == "nothing runs"


def test_up_again_keeps_data_and_key(up: "subprocess.CompletedProcess[str]", folder: Path) -> None:
    assert up.returncode == 0, up.stdout
    before = json.loads((folder / ".holdfast" / "stack.json").read_text())
    call(folder, "down")

    again = call(folder, "up")

    assert again.returncode == 0, again.stdout
    assert json.loads((folder / ".holdfast" / "stack.json").read_text())["api_key"] == before["api_key"]


def test_kill_ends_a_service_as_a_crash_would_and_the_stack_starts_it_again(
    up: "subprocess.CompletedProcess[str]", folder: Path, eventually: Eventually
) -> None:
    assert up.returncode == 0, up.stdout
    before = pids(folder)

    unknown = call(folder, "kill", "printer")
    killed = call(folder, "kill", "processor")

    assert (unknown.returncode, "there are postgres" in unknown.stdout) == (2, True)
    assert (killed.returncode, "killed processor" in killed.stdout) == (0, True)
    eventually(
        lambda: len(pids(folder)["processor"]) > 1 and not set(before["processor"]) & set(pids(folder)["processor"])
    )
    assert pids(folder)["ingest"] == before["ingest"]


def test_kill_without_a_stack_kills_nothing(folder: Path) -> None:
    done = call(folder, "kill", "processor")

    assert (done.returncode, "nothing runs" in done.stdout) == (1, True)


def test_a_killed_stack_leaves_nothing_and_can_be_started_again(
    up: "subprocess.CompletedProcess[str]", folder: Path, living_in: LivingIn, eventually: Eventually
) -> None:
    assert up.returncode == 0, up.stdout
    owner = int((folder / ".holdfast" / "owner").read_text())

    os.kill(owner, signal.SIGKILL)

    eventually(lambda: not living_in(), timeout_seconds=30, message="left behind")
    again = call(folder, "up")
    assert again.returncode == 0, again.stdout


def test_run_shows_every_event_sums_up_and_ends_with_ctrl_c(
    folder: Path, living_in: LivingIn, eventually: Eventually
) -> None:
    push = {"event": "push", "action": None, "payload": {"ref": "refs/heads/main", "repository": {"full_name": "a/b"}}}
    (folder / "events.jsonl").write_text(f"{json.dumps(push)}\n" * 3)

    with running(folder, "--events", "events.jsonl") as (process, output):
        eventually(
            lambda: process.poll() is not None or "/v1/events" in output.read_text(),
            timeout_seconds=SECONDS,
            message=output.read_text(),
        )
        process.send_signal(signal.SIGINT)
        status = process.wait(30)

    text = output.read_text()
    assert status == 0, text
    assert len(re.findall(r"processed .*com\.github\.push", text)) == 3
    assert "3 events accepted (0 of them duplicates), 0 rejected: 3 processed, 0 dead" in text
    assert "Traceback" not in text
    eventually(lambda: not living_in(), message="left behind")


@pytest.mark.parametrize("moment", ["starting postgres", "starting redis", "starting the services"])
def test_ctrl_c_while_starting_leaves_nothing(
    folder: Path, living_in: LivingIn, eventually: Eventually, moment: str
) -> None:
    with running(folder) as (process, output):
        eventually(lambda: moment in output.read_text(), timeout_seconds=SECONDS, message=moment)
        process.send_signal(signal.SIGINT)
        process.wait(30)

    assert "Traceback" not in output.read_text()
    eventually(lambda: not living_in(), message="left behind")


def test_a_taken_port_is_said_and_replaced(folder: Path, eventually: Eventually) -> None:
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(socket.socket())
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # then it is taken already
            other.bind(("127.0.0.1", PORTS.ingest))
            other.listen()
        process, output = stack.enter_context(running(folder))

        eventually(lambda: "starting postgres" in output.read_text(), timeout_seconds=SECONDS)

        assert re.search(rf"port {PORTS.ingest} is taken: ingest is on \d+", output.read_text())
        process.send_signal(signal.SIGINT)
        process.wait(30)


def test_what_cannot_start_is_shown_with_its_log_and_everything_ends(
    folder: Path, living_in: LivingIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_LEASE_SECOND", "5")

    done = call(folder, "run")

    assert done.returncode == 1
    assert "did you mean HOLDFAST_LEASE_SECONDS?" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert living_in() == []


def test_a_file_that_holds_no_deliveries_is_refused_before_anything_starts(folder: Path) -> None:
    name = "[red]events.jsonl"  # also: what is printed is printed as it is
    (folder / name).write_text('{"event": "push"}\n')

    done = call(folder, "run", "--events", name)

    assert done.returncode == 1
    assert f"{name}: line 1" in done.stdout
    assert "starting" not in done.stdout


def test_status_without_a_stack_says_how_to_start_one(folder: Path) -> None:
    done = call(folder, "status")

    assert (done.returncode, "make up" in done.stdout) == (1, True)
