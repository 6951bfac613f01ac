"""``dev``: a processor that follows the code of its handlers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.client import Client
from holdfast.local.fixtures import Eventually

pytestmark = pytest.mark.xdist_group("local-command")  # the usual ports are wished for: one stack at a time

SHOP = """
import pathlib
import time

from holdfast.processor import Context, Handlers

handlers = Handlers()


@handlers.on("shop.paid", name="book")
def book(order: dict, ctx: Context) -> dict:
    return {"edition": 1}


@handlers.on("shop.slow", name="slow")
def slow(order: dict, ctx: Context) -> dict:
    pathlib.Path("began").touch()
    time.sleep(300)
    return {"edition": 1}
"""


class Dev:
    """The command in a folder with ``shop.py``, and what it has printed."""

    def __init__(self, folder: Path, *arguments: str, **settings: str) -> None:
        self.folder = folder
        self.shop = folder / "shop.py"
        self.shop.write_text(SHOP)
        self._output = folder / "output.txt"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
        with self._output.open("ab") as printed:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "holdfast.local", "dev", "shop:handlers", *arguments], cwd=folder,
                stdin=subprocess.DEVNULL, stdout=printed, stderr=printed, env=inherited | settings,
            )  # fmt: skip

    @property
    def printed(self) -> str:
        return self._output.read_text()

    def loads(self) -> int:
        """How often a worker has imported the handlers; two workers do at each start."""
        return self.printed.count("handlers loaded")

    def stack(self) -> dict[str, Any]:
        described: dict[str, Any] = json.loads((self.folder / ".holdfast" / "stack.json").read_text())
        return described

    def edit(self, old: str, new: str) -> None:
        self.shop.write_text(self.shop.read_text().replace(old, new))


@pytest.fixture
def dev(folder: Path, living_in: Callable[[], list[str]], eventually: Eventually) -> Iterator[Dev]:
    made = Dev(folder, "--stack")
    eventually(lambda: made.loads() >= 2, timeout_seconds=90, message="not started")
    yield made
    made.process.send_signal(signal.SIGINT)
    assert made.process.wait(60) == 0, made.printed
    eventually(lambda: not living_in(), message="left behind")


def test_changed_code_runs_errors_are_shown_and_events_are_given_back(dev: Dev, eventually: Eventually) -> None:
    stack = dev.stack()
    assert stack["pids"]["processor"] == [], "the stack has no processor of its own"
    with Client(stack["ingest_url"], stack["api_key"]) as client:

        def edition(event_id: str) -> Any:
            entries = client.get(event_id, ["timeline"]).timeline or ()
            return next((each.detail["result"]["edition"] for each in entries if each.state == "processed"), None)

        first = client.send({"type": "shop.paid", "data": {}}).event_id
        eventually(lambda: edition(first) == 1)
        slow = client.send({"type": "shop.slow", "data": {}}).event_id
        eventually((dev.folder / "began").exists)

        dev.edit("time.sleep(300)", "pass")
        eventually(lambda: edition(slow) == 1, timeout_seconds=90, message="not given back")
        [row] = [each for each in client.get(slow, ["timeline"]).timeline or () if each.state == "processed"]
        assert row.attempt == 1, "being interrupted was no attempt"

        dev.edit("handlers = Handlers()", "handlers = Handlers(")
        eventually(lambda: "SyntaxError" in dev.printed and "starts again at the next change" in dev.printed)
        waiting = client.send({"type": "shop.paid", "data": {}}).event_id
        dev.edit("handlers = Handlers(\n", "handlers = Handlers()\n")
        dev.edit('"edition": 1', '"edition": 2')
        eventually(lambda: edition(waiting) == 2, timeout_seconds=90, message="the next change did not mend it")


def test_it_needs_to_know_where_the_services_are(folder: Path) -> None:
    made = Dev(folder)

    assert made.process.wait(60) == 1
    assert "add --stack" in made.printed


def test_a_change_of_anything_but_sources_changes_nothing(
    folder: Path, database_url: str, redis_url: str, eventually: Eventually
) -> None:
    made = Dev(folder, HOLDFAST_DATABASE_URL=database_url, HOLDFAST_BROKER_URL=redis_url, HOLDFAST_REDIS_URL=redis_url)
    try:
        eventually(lambda: made.loads() == 2, timeout_seconds=60)
        (folder / "notes.md").write_text("no code")
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__" / "shop.py").write_text("")
        began = time.monotonic()
        made.edit('"edition": 1', '"edition": 2')
        eventually(lambda: made.loads() == 4, timeout_seconds=60)
        print(f"loaded {time.monotonic() - began:.1f} s after the change")
    finally:
        made.process.send_signal(signal.SIGTERM)
        assert made.process.wait(60) == 0, made.printed
    assert made.printed.count("starting again") == 1
