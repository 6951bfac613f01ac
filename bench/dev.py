"""``python -m bench.dev``: how long after a saved change of its code ``holdfast dev`` handles an event with it."""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from holdfast.client import Client

__all__ = ["Developer"]

GOAL_SECONDS = 3.0

PATIENCE_SECONDS = 90.0

LOOK_SECONDS = 0.02

SHOP = """
from holdfast.processor import Context, Handlers

handlers = Handlers()


@handlers.on("shop.paid", name="book")
def book(order: dict, ctx: Context) -> dict:
    return {"edition": 0}
"""


class Developer:
    """The command in a folder of its own with one handler and a whole local stack."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shop = folder / "shop.py"
        self._output = folder / "output.txt"
        self._shop.write_text(SHOP)
        with self._output.open("ab") as printed:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "holdfast.local", "dev", "shop:handlers", "--stack"], cwd=folder,
                stdin=subprocess.DEVNULL, stdout=printed, stderr=printed,
            )  # fmt: skip

    def wait(self) -> dict[str, Any]:
        """Until its workers have imported the handlers; the stack's addresses and key."""
        self._until(lambda: "handlers loaded" in self._output.read_text())
        described: dict[str, Any] = json.loads((self._folder / ".holdfast" / "stack.json").read_text())
        return described

    def change(self, client: Client, edition: int) -> float:
        """Seconds from a saved change until an event sent right behind it was handled by the new code."""
        self._shop.write_text(SHOP.replace('"edition": 0', f'"edition": {edition}'))
        began = time.monotonic()
        sent = client.send({"type": "shop.paid", "data": {}}).event_id
        while _edition(client, sent) != edition:
            # What the old code has taken just before it went says nothing: the next one goes to the new code.
            if _edition(client, sent) is not None:
                sent = client.send({"type": "shop.paid", "data": {}}).event_id
            if time.monotonic() > began + PATIENCE_SECONDS:
                raise RuntimeError(f"the change was not noticed: {self._output.read_text()[-2000:]}")
            time.sleep(LOOK_SECONDS)
        return time.monotonic() - began

    def stop(self) -> None:
        """End it, and the stack with it."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)

    def _until(self, is_so: Any) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_so():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"it did not start: {self._output.read_text()[-2000:]}")
            time.sleep(LOOK_SECONDS)


def _edition(client: Client, event_id: str) -> int | None:
    entries = client.get(event_id, ["timeline"]).timeline or ()
    return next(
        (each.detail["result"]["edition"] for each in entries if each.state == "processed" and each.detail), None
    )


def main() -> int:
    """Print each change, and the median."""
    parser = argparse.ArgumentParser(prog="python -m bench.dev", description=__doc__)
    parser.add_argument("--changes", type=int, default=7, help="of the code, one after the other (7)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        developer = Developer(Path(folder))
        try:
            stack = developer.wait()
            with Client(stack["ingest_url"], stack["api_key"]) as client:
                developer.change(client, 1)  # what it finds cold the first time is no restart's
                took = [developer.change(client, edition) for edition in range(2, options.changes + 2)]
        finally:
            developer.stop()
    median = statistics.median(took)
    verdict = "met" if median <= GOAL_SECONDS else "missed"
    each = ", ".join(f"{seconds:.2f}" for seconds in took)
    sys.stdout.write(f"{each} s; median {median:.2f} s, goal {GOAL_SECONDS:g} s: {verdict}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
