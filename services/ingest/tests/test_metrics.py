"""What /metrics of a running process has."""

import re
from typing import Any

import httpx

from holdfast.runtime.telemetry import declared_metrics


def test_a_process_exports_the_metrics_of_ingest_and_no_others(ingest: Any) -> None:
    body = httpx.get(f"{ingest.metrics_url}/metrics", timeout=10).text

    exported = set(re.findall(r"^# TYPE (holdfast_\w+)", body, re.MULTILINE))

    assert "holdfast_events_received_total" in exported
    assert not [name for name in exported if re.match(r"holdfast_(replay|live|stale|retries|events_pending)", name)]
    expected = [each for each in declared_metrics().values() if "ingest" in each.services]
    assert len({name.removesuffix("_created") for name in exported}) >= len(expected)
