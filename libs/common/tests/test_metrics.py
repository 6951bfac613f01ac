"""The catalogue of metrics, what the documentation says of it, and what each service exports."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from holdfast.runtime.telemetry import Metrics, Service, declared_metrics

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]

ROW = re.compile(r"^\| `(holdfast_\w+)` \| ([a-z, ]+) \|", re.MULTILINE)

PRINT_EXPORTED = """
import sys
from prometheus_client import REGISTRY
from holdfast.runtime.telemetry import export_metrics
export_metrics(sys.argv[1], version="1")
print(*(metric.name for metric in REGISTRY.collect() if metric.name.startswith("holdfast_")))
"""


def catalogue() -> dict[str, set[str]]:
    """Name as Prometheus shows it → services."""
    made = {name: getattr(Metrics, name) for name in declared_metrics()}
    return {
        made[name]._name + ("_total" if made[name]._type == "counter" else ""): set(declared.services)
        for name, declared in declared_metrics().items()
    }


def test_the_documentation_has_every_metric_with_its_services() -> None:
    page = Path(__file__).parents[3] / "docs/operations.md"

    documented = {name: set(services.split(", ")) for name, services in ROW.findall(page.read_text())}

    assert documented == catalogue()


@pytest.mark.parametrize("service", get_args(Service))
def test_a_service_exports_what_it_moves_and_nothing_else(service: str, run_python: RunPython) -> None:
    done = run_python("-c", PRINT_EXPORTED, service)

    exported = set(done.stdout.split())

    assert exported == {name.removesuffix("_total") for name, services in catalogue().items() if service in services}
    assert exported
