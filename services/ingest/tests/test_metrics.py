"""What /metrics of a running process has."""

import re
from typing import Any

import httpx

from holdfast.local.fixtures import clone_template
from holdfast.local.servers import Postgres, Valkey
from holdfast.runtime.telemetry import declared_metrics


def test_a_process_exports_the_metrics_of_ingest_and_no_others(
    postgres: Postgres, valkey: Valkey, start_ingest: Any
) -> None:
    # One that serves alone: several tell of a metric with labels only when it has moved.
    ingest = start_ingest(postgres, valkey, database=clone_template(postgres), HOLDFAST_INGEST_PROCESSES="1")
    body = httpx.get(f"{ingest.metrics_url}/metrics", timeout=10).text

    exported = set(re.findall(r"^# TYPE (holdfast_\w+)", body, re.MULTILINE))

    assert "holdfast_events_received_total" in exported
    assert not [name for name in exported if re.match(r"holdfast_(replay|live|stale|retries|events_pending)", name)]
    expected = [each for each in declared_metrics().values() if "ingest" in each.services]
    assert len({name.removesuffix("_created") for name in exported}) >= len(expected)
