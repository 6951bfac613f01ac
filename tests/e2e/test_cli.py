"""The ``holdfast`` command against a running stack."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from holdfast.client import Client
from holdfast.local.stack import Stack

pytestmark = pytest.mark.xdist_group("shared-stack")

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

HOLDFAST = str(Path(sys.executable).with_name("holdfast"))


@pytest.fixture
def settings(shared_stack: Stack) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    own = {
        "HOLDFAST_URL": shared_stack.ingest_url,
        "HOLDFAST_API_KEY": shared_stack.api_key,
        "HOLDFAST_LIVE_URL": shared_stack.live_url,
    }
    return inherited | own | {"NO_COLOR": "1", "COLUMNS": "200"}


@pytest.fixture
def cli(settings: dict[str, str], tmp_path: Path) -> Cli:
    """Run the command to its end."""

    def run(*arguments: str, stdin: str = "", **changes: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [HOLDFAST, *arguments], env=settings | changes, cwd=tmp_path, input=stdin, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

    return run


def test_send_prints_the_event_and_says_duplicates(cli: Cli) -> None:
    arguments = ["send", "--type", "com.github.push", "--id", uuid4().hex, "--data", "{}"]

    first, again = cli(*arguments), cli(*arguments, "-o", "json")

    assert first.returncode == 0, first.stderr
    assert "queued" in first.stdout
    assert json.loads(again.stdout)["is_duplicate"] is True


def test_watch_shows_what_is_sent_meanwhile(cli: Cli, settings: dict[str, str]) -> None:
    audience = f"user-{uuid4().hex}"
    watching = subprocess.Popen(
        [HOLDFAST, "watch", f"audience:{audience}", "--until-settled", "2", "-o", "json"],
        env=settings | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    # The first event may come before the subscription; the second one is then the one that is seen.
    while watching.poll() is None:
        cli("send", "--type", "com.github.push", "--audience", audience, "--data", "{}")
    output, errors = watching.communicate(timeout=30)

    assert watching.returncode == 0, errors
    states = [json.loads(line)["event"]["state"] for line in output.splitlines()]
    assert {"queued", "processing", "processed"} == set(states)


def test_show_prints_the_timeline(cli: Cli) -> None:
    event_id = cli("send", "--type", "com.github.push", "--data", '{"n": 1}').stdout.split()[0]

    shown = cli("events", "show", event_id)

    assert shown.returncode == 0, shown.stderr
    assert "com.github.push" in shown.stdout
    assert "queued" in shown.stdout


def test_a_file_is_sent_line_by_line_and_its_faults_are_listed(cli: Cli, tmp_path: Path) -> None:
    good = {"type": "com.github.push", "source": "/cli", "data": {}}
    file = tmp_path / "events.jsonl"
    file.write_text("\n".join(json.dumps(event) for event in (good, good | {"type": ""}, good)))

    sent = cli("send", "--file", str(file))

    assert sent.returncode == 1
    assert "line 2" in sent.stderr
    assert "accepted 2 (of which 0 duplicates), rejected 1" in sent.stderr


@pytest.mark.parametrize(
    ("arguments", "changes", "said"),
    [
        (["send"], {}, "either --type"),
        (["send", "--type", "t", "--data", "{"], {}, "not JSON"),
        (["watch"], {}, "at least one topic"),
        (["watch", "nonsense"], {}, "a topic is"),
        (["events", "show", "nonsense"], {}, "404 not_found"),
        (["send", "--type", "t"], {"HOLDFAST_API_KEY": "hf_wrong"}, "401 unauthorized"),
        (["send", "--type", "t"], {"HOLDFAST_URL": "", "HOLDFAST_API_KEY": ""}, "make up"),
        (["migrate"], {}, "HOLDFAST_DATABASE_URL"),
    ],
)
def test_mistakes_are_answered_with_a_line_and_no_traceback(
    cli: Cli, arguments: list[str], changes: dict[str, str], said: str
) -> None:
    done = cli(*arguments, **changes)

    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_keys_are_created_and_revoked(cli: Cli, shared_stack: Stack) -> None:
    database: dict[str, Any] = {"HOLDFAST_DATABASE_URL": shared_stack.database_url}

    key = cli("keys", "create", "--tenant", "acme", "--name", "test", **database).stdout.strip()

    assert cli("send", "--type", "com.github.push", HOLDFAST_API_KEY=key).returncode == 0
    assert cli("keys", "revoke", key.split("_")[1], "--database", **database).returncode == 0
    assert cli("keys", "revoke", key.split("_")[1], "--database", **database).returncode == 1


def test_the_nodes_of_the_stack_are_listed_and_a_done_event_waits_for_nothing(cli: Cli, client: Client) -> None:
    sent = client.send({"type": "com.github.push", "data": {}})
    client.wait(sent.event_id, timeout_seconds=30)

    listed = cli("workers", "ls", "-o", "json")
    why = cli("why", sent.event_id)

    nodes = [json.loads(line) for line in listed.stdout.splitlines()]
    assert {"maintenance", "processor"} == {node["service"] for node in nodes}, listed.stderr
    [processor] = [node for node in nodes if node["service"] == "processor"]
    assert (processor["state"], processor["slots"] > 0) == ("active", True)
    assert "com.github.*" in processor["types"]
    assert "it waits for nothing" in why.stdout, why.stderr
