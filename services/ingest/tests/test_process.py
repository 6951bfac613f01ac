"""The process: what it refuses to start with, and how it ends."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from holdfast.local.fixtures import clone_template
from holdfast.local.servers import Postgres, Valkey


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "HOLDFAST_DATABASE_URL"),
        ({"HOLDFAST_LIVE_TOKEN_SECRET": "too short"}, "HOLDFAST_LIVE_TOKEN_SECRET"),
        ({"HOLDFAST_MAX_EVENT_BITES": "1"}, "did you mean HOLDFAST_MAX_EVENT_BYTES?"),
    ],
)
def test_a_wrong_setting_stops_it_with_a_message_and_without_its_value(settings: dict[str, str], told: str) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}

    done = subprocess.run(
        [sys.executable, "-m", "holdfast.ingest"], env=inherited | settings, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip

    assert done.returncode == 78
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "too short" not in done.stderr


def test_a_stop_says_so_and_tells_no_key(
    postgres: Postgres, valkey: Valkey, start_ingest: Any, post_to: Callable[..., httpx.Response]
) -> None:
    name = clone_template(postgres)
    ingest = start_ingest(postgres, valkey, database=name)
    key = ingest.key()
    assert all(post_to(ingest, key).json()["enqueued"] for _ in range(20))

    ingest.stop()

    lines = ingest.lines()
    assert {"started", "stopped"} <= {line["message"] for line in lines}
    assert all(line["service.name"] == "ingest" for line in lines)
    assert key not in ingest.log.read_text()
