"""Erasures: the client and its commands against a real server that answers from a script."""

import os
import pty
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from holdfast.client import Client

Cli = Callable[..., Any]

ERASURE_ID = "01a20ce1-a999-7253-85bb-3c3e269307a2"

TENANT = {
    "name": "acme", "weight": 1, "waiting": 0,
    "backlog": {"limit_seconds": None, "is_own": False, "oldest_due_seconds": 0.0},
}  # fmt: skip


def begun(**changes: Any) -> dict[str, Any]:
    return {
        "erasure_id": ERASURE_ID, "everything": True, "subject_sha256": None, "state": "running", "erased": 0, "waiting": 0,
        "remains": None, "created_by": "k", "created_by_name": "ann", "created_at": "2026-11-28T09:30:00Z",
        "finished_at": None, "failures": 0, "last_error": None, "links": {}, **changes,
    }  # fmt: skip


OF_A_SUBJECT = begun(everything=False, subject_sha256="ab" * 32)


@pytest.fixture
def client(script: Any) -> Iterator[Client]:
    with Client(script.url, "hf_key") as client:
        yield client


def test_the_client_erases_a_subject_or_everything(script: Any, client: Client) -> None:
    script.answers = [(202, OF_A_SUBJECT, {}), (202, begun(), {})]

    subject, everything = client.erase("user-42"), client.erase_everything()

    assert (subject.is_everything, subject.subject_sha256) == (False, "ab" * 32)
    assert (everything.is_everything, everything.subject_sha256) == (True, None)
    assert [body for _, _, body in script.requests] == [{"subject": "user-42"}, {"everything": True}]


@pytest.mark.parametrize(
    ("arguments", "body"),
    [(["--subject", "user-42"], {"subject": "user-42"}), (["--everything"], {"everything": True})],
)
def test_with_yes_nobody_is_asked(cli: Cli, script: Any, arguments: list[str], body: dict[str, Any]) -> None:
    script.answers = [(202, begun(), {})]

    done = cli("erase", *arguments, "--yes")

    assert done.returncode == 0, done.stderr
    assert ERASURE_ID in done.stdout
    assert [sent for _, _, sent in script.requests] == [body]


@pytest.mark.parametrize("arguments", [[], ["--subject", "user-42", "--everything"]])
def test_exactly_one_says_what_is_erased(cli: Cli, script: Any, arguments: list[str]) -> None:
    done = cli("erase", *arguments, "--yes")

    assert done.returncode == 2
    assert "give either --subject or --everything" in done.stderr
    assert script.requests == []


def test_where_nobody_can_type_the_name_nothing_is_erased(cli: Cli, script: Any) -> None:
    script.answers = [(200, TENANT, {})]

    done = cli("erase", "--everything")

    assert done.returncode == 1
    assert "all events of the tenant acme" in done.stderr
    assert "stdin is not a terminal, so nothing was erased" in done.stderr
    assert [path for path, _, _ in script.requests] == ["/v1/tenant"]


@pytest.mark.parametrize(
    ("answer", "status", "asked"),
    [
        (b"acme\n", 0, ["/v1/tenant", "/v1/erasures"]), (b"y\n", 1, ["/v1/tenant"]), (b"ACME\n", 1, ["/v1/tenant"]),
    ],
)  # fmt: skip
def test_at_a_terminal_everything_goes_only_for_the_tenants_name(
    script: Any, command: list[str], environment: dict[str, str], answer: bytes, status: int, asked: list[str]
) -> None:
    script.answers = [(200, TENANT, {}), (202, begun(), {})]
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "wb", buffering=0) as terminal:
        process = subprocess.Popen(
            [*command, "erase", "--everything"], env=environment, stdin=theirs, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(theirs)
        terminal.write(answer)
        output, said = process.communicate(timeout=60)

    assert (process.returncode, [path for path, _, _ in script.requests]) == (status, asked)
    assert "Type acme to go on" in said
    assert (ERASURE_ID in output) is (status == 0)


def test_the_list_says_what_erasures_are_of(cli: Cli, script: Any) -> None:
    script.answers = [(200, {"items": [begun(), OF_A_SUBJECT], "next_cursor": None}, {})]

    listed = cli("erasures", "ls")

    assert listed.returncode == 0, listed.stderr
    assert [line.split("  ")[1].strip() for line in listed.stdout.splitlines()[1:]] == ["everything", "a subject"]
