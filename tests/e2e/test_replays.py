"""Dead letters, replays and their commands on a running stack."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from holdfast.client import Client
from holdfast.local.fixtures import Eventually
from holdfast.local.stack import Stack

pytestmark = pytest.mark.xdist_group("shared-stack")

HOLDFAST = str(Path(sys.executable).with_name("holdfast"))
COUNT = 20


@pytest.fixture
def operator(shared_stack: Stack) -> Iterator[Client]:
    with Client(shared_stack.ingest_url, shared_stack.api_key) as client:
        yield client


@pytest.fixture
def holdfast(shared_stack: Stack, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """The command, as a process."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    own = {"HOLDFAST_URL": shared_stack.ingest_url, "HOLDFAST_API_KEY": shared_stack.api_key, "NO_COLOR": "1"}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [HOLDFAST, *arguments], env=inherited | own, cwd=tmp_path, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    return run


def attempts(client: Client, event_id: str) -> int:
    return len(client.attempts(event_id))


def test_what_died_is_counted_replayed_at_a_rate_and_tried_again(
    operator: Client, holdfast: Callable[..., "subprocess.CompletedProcess[str]"], eventually: Eventually
) -> None:
    type_ = f"test.nobody.{uuid4().hex}"
    event_ids = [operator.send({"type": type_, "data": {"n": n}}).event_id for n in range(COUNT)]
    assert {operator.wait(event_id, 60).state for event_id in event_ids} == {"dead"}
    listed = [event.event_id for event in operator.events(type=type_, state="dead")]

    counted = holdfast("replay", "--type", type_, "--dry-run", "-o", "json")
    begun = json.loads(holdfast("replay", "--type", type_, "--rate", "200", "-o", "json").stdout)

    eventually(lambda: operator.replay_progress(begun["replay_id"]).state == "done", timeout_seconds=60)
    over = operator.replay_progress(begun["replay_id"])
    assert listed == event_ids[::-1]
    assert json.loads(counted.stdout)["count"] == begun["total"] == over.replayed == COUNT
    for event_id in event_ids:
        eventually(partial(lambda each: attempts(operator, each) == 2, event_id), message="each is tried once more")
    states = [entry.state for entry in operator.get(event_ids[0], ["timeline"]).timeline or ()]
    assert states == ["queued", "processing", "dead", "queued", "processing", "dead"]
    [group] = [each for each in operator.dead_letters() if each.type == type_]
    assert (group.error_type, group.count) == ("no_handler", COUNT)


def test_a_processed_event_is_replayed_as_a_new_one_and_a_dead_one_discarded(
    operator: Client, holdfast: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    data = {"ref": "refs/heads/main", "repository": {"full_name": f"acme/{uuid4().hex}"}}
    processed = operator.send({"type": "com.github.push", "data": data}).event_id
    dead = operator.send({"type": "test.nobody", "data": {}}).event_id
    assert holdfast("events", "wait", processed).returncode == 0
    assert holdfast("events", "wait", dead).returncode == 1

    replayed = json.loads(holdfast("replay", processed, "-o", "json").stdout)
    discarded = holdfast("discard", dead)

    copy = operator.wait(replayed["event_id"], 60)
    assert (copy.state, copy.replay_of) == ("processed", processed)
    assert discarded.stdout == f"{dead}  discarded\n"
    assert holdfast("discard", dead).returncode == 1
