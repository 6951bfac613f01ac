"""The four services as production starts them, each with the settings it needs, and how to tell that they are ready."""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["SERVICES", "Service", "environment", "is_ready"]


@dataclass(frozen=True, slots=True)
class Service:
    """A service's name in ``stack.json``, its command, and whether it serves health and metrics."""

    name: str
    arguments: tuple[str, ...]
    has_metrics: bool = True

    @property
    def command(self) -> list[str]:
        """Program and arguments."""
        return [sys.executable, "-m", *self.arguments]


SERVICES = (
    Service("ingest", ("holdfast.ingest",)),
    Service("processor", ("holdfast.processor",)),
    Service("maintenance", ("holdfast.maintenance", "worker")),
    Service("scheduler", ("holdfast.maintenance", "scheduler"), has_metrics=False),
    Service("ws-gateway", ("holdfast.gateway",)),
)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with these settings and no other ``HOLDFAST_*`` ones: a stack is what it was told to be."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    return {**inherited, "PYTHONUNBUFFERED": "1", **settings}


def is_ready(url: str) -> bool:
    """Whether ``/readyz`` answers with success."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:  # noqa: S310 (an address of our own)
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
