"""The compose profile ``obs``, as far as it can be judged without its images."""

import re
from typing import Any

import pytest
import yaml
from tests.observability.shipped import FOLDER, ROOT

OBSERVERS = ["blackbox", "grafana", "jaeger", "node", "otel-collector", "prometheus"]

HEALTHLESS = {"otel-collector"}
"""Their images hold nothing that could ask."""


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def observers() -> dict[str, Any]:
    return {name: service for name, service in services().items() if service.get("profiles") == ["obs"]}


def test_only_the_profile_starts_what_observes() -> None:
    assert sorted(observers()) == OBSERVERS
    assert not [name for name, service in services().items() if "profiles" in service and name not in OBSERVERS]


@pytest.mark.parametrize("name", OBSERVERS)
def test_an_observer_is_pinned_watched_and_harmless(name: str) -> None:
    service = observers()[name]

    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"])
    assert ("healthcheck" in service) == (name not in HEALTHLESS)
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_what_is_mounted_is_there_and_cannot_be_written() -> None:
    mounts = [
        mount for service in observers().values() for mount in service.get("volumes", ()) if mount.startswith("./")
    ]

    assert mounts
    for mount in mounts:
        source, _, mode = mount.split(":")
        assert (ROOT / source).is_dir(), mount
        assert mode == "ro", mount


def test_grafana_shows_everything_to_viewers_and_has_no_administrator() -> None:
    environment = observers()["grafana"]["environment"]

    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert not [name for name in environment if "PASSWORD" in name]


def test_prometheus_looks_for_names_that_compose_gives() -> None:
    jobs = yaml.safe_load((FOLDER / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    names = {name for job in jobs for found in job.get("dns_sd_configs", ()) for name in found["names"]}

    assert names == {"ingest", "processor", "maintenance", "ws-gateway"}
    assert names <= services().keys()
