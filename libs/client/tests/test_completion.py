"""Completion scripts, run by the shells that they are for, where those are installed."""

import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from holdfast.client.cli import app
from holdfast.client.completion import commands_of

Cli = Callable[..., Any]

STATES = ["dead", "discarded", "failed", "processed", "processing", "queued"]


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.fixture
def script(cli: Cli, tmp_path: Path) -> Callable[[str], Path]:
    """The file with a shell's completion."""

    def write(shell: str) -> Path:
        file = tmp_path / f"completion.{shell}"
        file.write_text(cli("completion", shell).stdout)
        return file

    return write


def in_bash(file: Path, line: str) -> list[str]:
    program = 'source "$1"; COMP_LINE="$2" COMP_POINT=${#2}; _holdfast; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "--norc", "-uc", program, "bash", str(file), line], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return sorted(filter(None, done.stdout.splitlines()))


def in_fish(file: Path, line: str) -> list[str]:
    program = "source $argv[1]; complete -C $argv[2]"
    done = subprocess.run(
        ["fish", "--no-config", "-c", program, str(file), line], capture_output=True, text=True, check=True
    )
    return sorted(each.partition("\t")[0] for each in done.stdout.splitlines())


SHELLS = [pytest.param(in_bash, "bash", marks=needs("bash")), pytest.param(in_fish, "fish", marks=needs("fish"))]


@pytest.mark.parametrize(("complete", "shell"), SHELLS)
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("holdfast ev", ["events"]),
        ("holdfast events l", ["ls"]),
        ("holdfast events ls --state ", STATES),
        ("holdfast events ls -s d", ["dead", "discarded"]),
        ("holdfast events ls --limit 5 --st", ["--state"]),
        ("holdfast replays ls --state ", ["cancelled", "done", "running"]),
        ("holdfast schedules set x --overlap ", ["allow", "skip"]),
        ("holdfast dead ls -o ", ["json", "table"]),
        ("holdfast completion ", ["bash", "fish", "zsh"]),
        ("holdfast events ls --type ", []),
        ("holdfast replay --error-type events --dr", ["--dry-run"]),
    ],
)
def test_commands_options_and_values_are_completed(
    script: Callable[[str], Path], complete: Callable[[Path, str], list[str]], shell: str, line: str,
    completed: list[str],
) -> None:  # fmt: skip
    assert complete(script(shell), line) == completed


@needs("bash")
def test_bash_completes_a_value_with_a_colon(script: Callable[[str], Path]) -> None:
    assert in_bash(script("bash"), "holdfast doctor --scope events:w") == ["write"], "what follows the last colon"
    assert in_bash(script("bash"), "holdfast doctor --scope ev") == ["events:read", "events:write"]


@needs("zsh")
@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("holdfast events ls --state di", "holdfast events ls --state discarded "),
        ("holdfast comp", "holdfast completion "),
        ("holdfast events ls --lim", "holdfast events ls --limit "),
        ("holdfast doctor --scope events:w", "holdfast doctor --scope events:write "),
    ],
)
def test_zsh_completes_at_a_terminal(script: Callable[[str], Path], tmp_path: Path, typed: str, shown: str) -> None:
    file = script("zsh")
    (tmp_path / ".zshrc").write_text(f"PS1='> '; autoload -Uz compinit; compinit -u -D; source {file}; echo ready\n")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe("zsh", ["zsh", "-i"], {**os.environ, "ZDOTDIR": str(tmp_path), "TERM": "xterm"})  # noqa: S606
    try:
        read_until(terminal, "ready")
        os.write(terminal, f"{typed}\t".encode())
        screen = read_until(terminal, shown)
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)

    assert shown in screen


def read_until(terminal: int, words: str, seconds: float = 30) -> str:
    """What a terminal shows, until it has these words or the time is up; escape sequences are left out."""
    screen, deadline = "", time.monotonic() + seconds
    while words not in screen and select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
        read = os.read(terminal, 65536).decode(errors="replace")
        screen += re.sub(r"\x1b(\[[0-9;?]*[a-zA-Z]|[=>])|[\r\x07]", "", read)
    return screen


def test_every_command_and_option_is_in_every_script(script: Callable[[str], Path]) -> None:
    commands = list(commands_of(typer.main.get_command(app)))
    assert {each.words for each in commands} >= {
        "holdfast",
        "holdfast events ls",
        "holdfast doctor",
        "holdfast token create",
    }

    for shell in ("bash", "zsh", "fish"):
        text = script(shell).read_text()
        for command in commands:
            assert all(name in text for name, _ in command.subcommands)
            for option in command.options:
                assert all(name.lstrip("-") in text for name in option.names)
