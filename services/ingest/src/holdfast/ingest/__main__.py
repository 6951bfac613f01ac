"""``python -m holdfast.ingest``: check the settings, then become gunicorn."""

import os
import sys

from holdfast.domain.errors import ConfigurationError
from holdfast.runtime.settings import IngestSettings, load


def main() -> None:
    """Replace this process by gunicorn."""
    try:
        load(IngestSettings)
    except ConfigurationError as exc:
        sys.exit(str(exc))
    command = [sys.executable, "-m", "gunicorn", "-c", "python:holdfast.ingest.http.gunicorn_conf"]
    os.execv(sys.executable, [*command, "holdfast.ingest.http.app:create_app()"])  # noqa: S606


if __name__ == "__main__":
    main()
