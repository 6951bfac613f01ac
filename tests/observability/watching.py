"""A Prometheus that watches a local stack, with the configuration that is shipped and the addresses of the stack."""

import contextlib
import json
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tests.observability.shipped import FOLDER

from holdfast.local.process import Guarded, wait_until
from holdfast.local.servers import free_port
from holdfast.local.stack import Stack

__all__ = ["PROGRAMS", "Prometheus", "watching"]

PROGRAMS = ("prometheus", "prometheus-blackbox-exporter", "prometheus-node-exporter")

INTERVAL = "1s"
"""Of scrapes and evaluations, in place of 15 s; so are the times for which alerts wait, in place of minutes."""


class Prometheus:
    """Questions to its HTTP API (https://prometheus.io/docs/prometheus/latest/querying/api/)."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, path: str, **parameters: str) -> Any:
        """``data`` of the answer.

        Raises:
            HTTPError: it does not accept the question.
        """
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{query}", timeout=10) as answer:  # noqa: S310 (our own)
            return json.load(answer)["data"]

    def is_ready(self) -> bool:
        """Whether it takes questions."""
        with contextlib.suppress(OSError):
            return bool(self.ask("query", query="1"))
        return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query."""
        found: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def firing(self) -> dict[str, dict[str, Any]]:
        """Name of each alert that fires → one of its instances, with ``labels`` and ``annotations``."""
        alerts = self.ask("alerts")["alerts"]
        return {alert["labels"]["alertname"]: alert for alert in alerts if alert["state"] == "firing"}

    def targets(self) -> dict[str, set[str]]:
        """Job → health of its targets (``up``, ``down``, ``unknown``)."""
        found: dict[str, set[str]] = {}
        for target in self.ask("targets", state="active")["activeTargets"]:
            found.setdefault(target["labels"]["job"], set()).add(target["health"])
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its ``health`` and ``lastError``."""
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]


@contextlib.contextmanager
def watching(stack: Stack, folder: Path) -> Iterator[Prometheus]:
    """Start Prometheus and its exporters beside a stack."""
    ports = {program: free_port() for program in PROGRAMS}
    commands = {
        "prometheus-blackbox-exporter": ["--config.file", str(FOLDER / "blackbox/blackbox.yml")],
        "prometheus-node-exporter": ["--collector.disable-defaults", "--collector.filesystem"],
        "prometheus": [
            "--config.file", str(_configure(stack, folder, ports)), "--storage.tsdb.path", str(folder / "data"),
        ],
    }  # fmt: skip
    with contextlib.ExitStack() as running:
        for program, arguments in commands.items():
            process = Guarded(program, log=folder / f"{program}.log")
            listen = f"--web.listen-address=127.0.0.1:{ports[program]}"
            process.start([str(shutil.which(program)), *arguments, listen], {})
            running.callback(process.stop)
        prometheus = Prometheus(f"http://127.0.0.1:{ports['prometheus']}")
        wait_until(prometheus.is_ready, process=process, seconds=60, what="prometheus")
        yield prometheus


def _configure(stack: Stack, folder: Path, ports: dict[str, int]) -> Path:
    config = yaml.safe_load((FOLDER / "prometheus/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL}
    for job in config["scrape_configs"]:
        if found := job.pop("dns_sd_configs", None):
            job["static_configs"] = [_target(stack, name) for each in found for name in each["names"]]
        for step in job.get("relabel_configs", ()):
            if step.get("replacement") == "blackbox:9115":
                step["replacement"] = f"127.0.0.1:{ports['prometheus-blackbox-exporter']}"
        if job["job_name"] == "node":
            job["static_configs"] = [{"targets": [f"127.0.0.1:{ports['prometheus-node-exporter']}"]}]
    (folder / "rules").mkdir(parents=True)
    for path in (FOLDER / "prometheus/rules").glob("*.yml"):
        (folder / "rules" / path.name).write_text(_hastened(path.read_text()))
    written = folder / "prometheus.yml"
    written.write_text(yaml.safe_dump(config))
    return written


def _target(stack: Stack, service: str) -> dict[str, Any]:
    """What Prometheus would find by the service's name: its address, and the name."""
    address = stack.metrics_url(service).removeprefix("http://")
    return {"targets": [address], "labels": {"__meta_dns_name": service}}


def _hastened(rules: str) -> str:
    content = yaml.safe_load(rules)
    for group in content["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = INTERVAL
    return yaml.safe_dump(content)
