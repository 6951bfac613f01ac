"""``python -m holdfast.processor``: check the settings, then become the Dramatiq worker."""

import os
import sys

from holdfast.domain.errors import ConfigurationError
from holdfast.messaging import doorbell
from holdfast.runtime.settings import ProcessorSettings, load


def main() -> None:
    """Replace this process by Dramatiq's command."""
    try:
        settings = load(ProcessorSettings)
    except ConfigurationError as exc:
        sys.exit(str(exc))
    # Prefetching more than the threads can take would keep doorbells from other replicas that are idle.
    environment = os.environ | {"dramatiq_queue_prefetch": str(settings.processor_threads)}
    command = [
        sys.executable, "-m", "dramatiq", "holdfast.processor.actors",
        "--queues", doorbell.QUEUE, doorbell.SUSPECT_QUEUE,
        "--processes", str(settings.processor_processes),
        "--threads", str(settings.processor_threads),
        "--worker-shutdown-timeout", str(int(settings.shutdown_seconds * 1000)),
        "--skip-logging",
    ]  # fmt: skip
    os.execve(sys.executable, command, environment)  # noqa: S606


if __name__ == "__main__":
    main()
