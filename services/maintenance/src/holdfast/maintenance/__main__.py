"""``python -m holdfast.maintenance worker|scheduler``."""

import argparse
import os
import sys

from holdfast.domain.errors import ConfigurationError
from holdfast.runtime.refusal import refuse
from holdfast.runtime.settings import MaintenanceSettings, load

QUEUE = "maintenance"

WAKE_MS = 2000
"""How often Dramatiq's threads look whether they are to stop; ticks, one a minute, wake them by themselves."""


def main() -> None:
    """Become the Dramatiq worker, or run the scheduler."""
    parser = argparse.ArgumentParser(prog="python -m holdfast.maintenance", description="Holdfast's maintenance")
    parser.add_argument("role", choices=["worker", "scheduler"], help="worker: does the duties; scheduler: sends ticks")
    role = parser.parse_args().role
    try:
        settings = load(MaintenanceSettings)
    except ConfigurationError as exc:
        refuse(exc)
    if role == "worker":
        _become_worker(settings)
    from holdfast.maintenance.scheduler import run

    run(settings)


def _become_worker(settings: MaintenanceSettings) -> None:
    command = [
        sys.executable, "-m", "dramatiq", "holdfast.maintenance.actors",
        "--queues", QUEUE,
        "--processes", "1",
        "--threads", str(settings.maintenance_threads),
        "--worker-shutdown-timeout", str(int(settings.shutdown_seconds * 1000)),
        "--skip-logging",
    ]  # fmt: skip
    os.environ.setdefault("dramatiq_worker_timeout", str(WAKE_MS))
    os.execv(sys.executable, command)  # noqa: S606


if __name__ == "__main__":
    main()
