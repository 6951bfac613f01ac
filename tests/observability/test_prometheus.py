"""What is shipped, against a real stack: every name is exported, and a real Prometheus sees what breaks."""

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.observability.shipped import Use, expressions, needs, panels, recorded, uses
from tests.observability.watching import PROGRAMS, Prometheus, watching

from holdfast.client import Client
from holdfast.local.fixtures import Eventually
from holdfast.local.stack import Stack
from holdfast.runtime.telemetry import Metrics, declared_metrics

pytestmark = pytest.mark.xdist_group("observability")

EVERYWHERE = {"job", "instance"}
"""What Prometheus adds to each series."""

FOREIGN = {
    "up": set[str](),
    "ALERTS": {"alertname", "alertstate", "severity"},
    "probe_success": {"service"},
    "probe_http_status_code": {"service"},
    "node_filesystem_avail_bytes": {"fstype", "mountpoint"},
    "node_filesystem_size_bytes": {"fstype", "mountpoint"},
}
"""Series of others, with their labels; the real Prometheus has each of them (below)."""

PANEL_VALUES = {"$job": ".+", "$instance": ".+", "$handler": ".+", "$__rate_interval": "1m"}

RARE = re.compile(
    r"retries|dead_letters|events_recovered|live_gaps|live_closed|ingest_refused|replay_items|open:sum\[30m\]|ALERTS"
)
"""Series with labels that begin with their first event, what takes half an hour, and alerts."""


@pytest.fixture(scope="module")
def watched(server_folder: Path) -> Iterator[Stack]:
    with Stack(server_folder / uuid4().hex, settings={"HOLDFAST_PROCESSOR_PROCESSES": "1"}) as stack:
        yield stack


@pytest.fixture(scope="module")
def prometheus(watched: Stack, server_folder: Path) -> Iterator[Prometheus]:
    folder = server_folder / uuid4().hex
    folder.mkdir()
    with watching(watched, folder) as prometheus:
        yield prometheus


def exported(stack: Stack) -> dict[str, set[str]]:
    """Series that the services export → labels of their own. A metric with labels has none before it moves for the first
    time, not even a comment when several processes share it, so those are taken from the catalogue.
    """
    found: dict[str, set[str]] = {}
    for service in ("ingest", "processor", "maintenance", "ws-gateway"):
        with urllib.request.urlopen(f"{stack.metrics_url(service)}/metrics", timeout=10) as answer:  # noqa: S310 (our own)
            for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", answer.read().decode(), re.MULTILINE):
                found |= series(name, kind, set())
    for name in declared_metrics():
        metric = getattr(Metrics, name)
        if metric._labelnames:
            suffix = "_total" if metric._type == "counter" else ""
            found |= series(metric._name + suffix, metric._type, set(metric._labelnames))
    return found


def series(name: str, kind: str, labels: set[str]) -> dict[str, set[str]]:
    """What Prometheus makes of a metric."""
    if kind != "histogram":
        return {name: labels}
    return {f"{name}_count": labels, f"{name}_sum": labels, f"{name}_bucket": labels | {"le"}}


def known(stack: Stack) -> dict[str, set[str]]:
    """Every series that a query may name → its labels."""
    found = exported(stack) | FOREIGN
    for name, expression in recorded().items():
        found[name] = set(uses(expression)[1]) - {"le", *EVERYWHERE}
    return found


def test_every_series_and_label_of_a_query_exists(watched: Stack) -> None:
    there = known(watched)

    for where, expression in expressions():
        used, grouped = uses(expression)
        assert used, where
        for use in used:
            assert use.metric in there, f"{where}: nobody exports {use.metric}"
            assert use.labels <= there[use.metric] | EVERYWHERE, f"{where}: {use.metric} has {there[use.metric]}"
        labels = set().union(*(there[use.metric] for use in used)) | EVERYWHERE
        assert grouped <= labels, f"{where}: {grouped - labels} is no label there"


@pytest.mark.parametrize(
    ("expression", "used", "grouped"),
    [
        ("up == 0", {Use("up", frozenset())}, set()),
        ('sum by (a) (rate(x_total{b="c", d!~"e{f}"}[5m] offset 1h))', {Use("x_total", frozenset({"b", "d"}))}, {"a"}),
        ("a:b:c > 1 and on (z) (y or vector(0)) < 2", {Use("a:b:c", frozenset()), Use("y", frozenset())}, {"z"}),
    ],
)
def test_series_and_labels_are_read_out_of_a_query(expression: str, used: set[Use], grouped: set[str]) -> None:
    assert uses(expression) == (used, grouped)


@needs(PROGRAMS[0])
@needs(PROGRAMS[1])
@needs(PROGRAMS[2])
class TestWatching:
    """In order: a stack that is well, then one that breaks."""

    def test_every_target_is_up(self, prometheus: Prometheus, eventually: Eventually) -> None:
        jobs = {f"holdfast-{name}" for name in ("ingest", "processor", "maintenance", "gateway")}
        probes = {f"holdfast-{name}" for name in ("ready", "alive", "database", "redis")}

        eventually(lambda: prometheus.targets() == {job: {"up"} for job in jobs | probes | {"node"}})

    def test_every_series_of_others_is_there(self, prometheus: Prometheus, eventually: Eventually) -> None:
        for name in FOREIGN.keys() - {"ALERTS"}:
            found = eventually(lambda name=name: prometheus.query(name), message=name)  # type: ignore[misc]
            assert FOREIGN[name] <= found[0]["metric"].keys() | {"service"}, name

    def test_every_rule_is_evaluated(self, prometheus: Prometheus, eventually: Eventually) -> None:
        eventually(lambda: {rule["health"] for rule in prometheus.rules()} == {"ok"})

    def test_every_query_of_a_panel_is_answered(
        self, watched: Stack, prometheus: Prometheus, eventually: Eventually
    ) -> None:
        send_events(watched)
        eventually(lambda: prometheus.query("holdfast:events_processed:rate5m > 0"), timeout_seconds=60)

        for where, expression in panel_queries():
            prometheus.query(expression)
            if not RARE.search(expression):
                eventually(lambda asked=expression: prometheus.query(asked), message=where)  # type: ignore[misc]

    def test_nothing_fires_while_all_is_well(self, prometheus: Prometheus) -> None:
        of_this_machine = {"HoldfastDiskFull", "HoldfastDiskFills"}

        assert prometheus.firing().keys() - of_this_machine == set()

    def test_a_processor_that_is_away_is_told_of(
        self, watched: Stack, prometheus: Prometheus, eventually: Eventually
    ) -> None:
        watched.hold("processor")
        alert = await_alert(prometheus, eventually, "HoldfastProcessorAbsent")
        assert alert["labels"]["severity"] == "critical"
        assert alert["annotations"]["runbook_url"].endswith("#a-service-is-away")
        await_alert(prometheus, eventually, "HoldfastTargetDown")

        watched.resume("processor")
        eventually(lambda: "HoldfastProcessorAbsent" not in prometheus.firing())

    def test_postgresql_that_is_away_is_told_of(
        self, watched: Stack, prometheus: Prometheus, eventually: Eventually
    ) -> None:
        watched.postgres.stop()
        alert = await_alert(prometheus, eventually, "HoldfastDatabaseUnreachable")
        assert alert["labels"]["service"] in {"ingest", "processor", "maintenance"}
        await_alert(prometheus, eventually, "HoldfastNotReady")
        assert "HoldfastRedisUnreachable" not in prometheus.firing()

        watched.postgres.start()
        eventually(lambda: "HoldfastDatabaseUnreachable" not in prometheus.firing(), timeout_seconds=60)

    def test_redis_that_is_away_is_told_of(
        self, watched: Stack, prometheus: Prometheus, eventually: Eventually
    ) -> None:
        watched.redis.stop()
        alert = await_alert(prometheus, eventually, "HoldfastRedisUnreachable")
        assert alert["labels"]["service"] in {"ingest", "processor", "maintenance", "ws-gateway"}
        assert "HoldfastDatabaseUnreachable" not in prometheus.firing()

        watched.redis.start()
        eventually(lambda: "HoldfastRedisUnreachable" not in prometheus.firing(), timeout_seconds=60)


def panel_queries() -> Iterator[tuple[str, str]]:
    """Panel and query, with everything chosen."""
    for name, panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in PANEL_VALUES.items():
                expression = expression.replace(variable, value)
            yield f"{name}: {panel['title']}: {expression}", expression


def await_alert(prometheus: Prometheus, eventually: Eventually, name: str) -> dict[str, Any]:
    """The alert, once it fires."""
    alert = eventually(lambda: prometheus.firing().get(name), message=f"{name} does not fire")
    assert alert is not None
    return alert


def send_events(stack: Stack) -> None:
    with Client(stack.ingest_url, stack.api_key) as client:
        for _ in range(5):
            data = {"ref": "refs/heads/main", "repository": {"full_name": "acme/shop"}}
            client.send({"type": "com.github.push", "source": "https://github.com/acme/shop", "data": data})
