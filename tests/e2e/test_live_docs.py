"""The examples of docs/live.md, run as they stand there, with this stack's addresses. The browser's are in tests/browser."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from holdfast.client import Client

pytestmark = pytest.mark.xdist_group("shared-stack")

MakeEvent = Callable[..., dict[str, Any]]

PAGE = (Path(__file__).parents[2] / "docs" / "live.md").read_text()
TOPIC = "audience:user-42"


def example(language: str, holds: str) -> str:
    """The page's one example in a language that holds a text."""
    [found] = [block for block in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if holds in block]
    return str(found)


def placed(text: str, stack: dict[str, Any]) -> str:
    """An example with the addresses of this stack."""
    places = {
        "ws://127.0.0.1:8090/v1/live": stack["live_url"],
        "http://127.0.0.1:8090": stack["live_url"].replace("ws:", "http:").removesuffix("/v1/live"),
        "http://127.0.0.1:8080": stack["ingest_url"],
        "hf_…": stack["api_key"],
    }
    for written, actual in places.items():
        text = text.replace(written, actual)
    return text


@contextmanager
def running(command: list[str], **environment: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines_until(process: "subprocess.Popen[str]", text: str) -> list[str]:
    """What it prints up to a line with a text."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if text in line:
            return lines
    pytest.fail(f"ended without {text!r}: {lines}")


@pytest.fixture
def token(client: Client) -> str:
    return client.token([TOPIC]).token


def test_the_python_example_shows_what_there_is_and_every_update(
    e2e_stack: dict[str, Any], client: Client, push_event: MakeEvent
) -> None:
    before = client.send(push_event(audience="user-42")).event_id
    client.wait(before, timeout_seconds=60)

    with running([sys.executable, "-c", placed(example("python", "follow("), e2e_stack)]) as printing:
        lines_until(printing, f"{before} processed")
        after = client.send(push_event(audience="user-42")).event_id
        seen = lines_until(printing, f"{after} processed")

    states = [line.partition(" ")[2] for line in seen if line.startswith(after)]
    assert states[0] == "queued"


def test_the_curl_example_streams(e2e_stack: dict[str, Any], client: Client, push_event: MakeEvent, token: str) -> None:
    with running(["bash", "-c", placed("exec " + example("sh", "curl -N"), e2e_stack)], TOKEN=token) as printing:
        lines_until(printing, "event: subscribed")
        client.send(push_event(audience="user-42"))
        seen = lines_until(printing, '"state":"processed"')

    assert "event: update" in seen


def test_the_hello_for_wscat_is_one(
    e2e_stack: dict[str, Any], client: Client, push_event: MakeEvent, token: str
) -> None:
    hello = example("json", '"hello"').strip().replace("TOKEN", token)

    with connect(e2e_stack["live_url"], compression=None) as connection:
        connection.send(hello)
        kinds = [json.loads(connection.recv(timeout=10))["type"] for _ in range(2)]
        client.send(push_event(audience="user-42"))
        kinds.append(json.loads(connection.recv(timeout=10))["type"])

    assert kinds == ["welcome", "subscribed", "update"]
