"""``python -m holdfast.ingest``: check the settings, then serve until SIGTERM."""

import sys

from holdfast.domain.errors import ConfigurationError
from holdfast.ingest.edge.server import serve
from holdfast.ingest.edge.threads import Threads
from holdfast.ingest.http.app import create_app
from holdfast.ingest.http.parts import EXTENSION, Parts
from holdfast.runtime.health import Check, serve_health
from holdfast.runtime.refusal import refuse
from holdfast.runtime.settings import IngestSettings, load


def main() -> None:
    """Exit with 78 and a message when a setting is wrong, with 1 when the port is taken."""
    try:
        settings = load(IngestSettings)
        app = create_app(settings)
    except ConfigurationError as exc:
        refuse(exc)
    parts: Parts = app.extensions[EXTENSION]
    threads = Threads(settings.ingest_threads)
    parts.checks["threads"] = Check(threads.check)
    serve_health(settings.metrics_host, settings.metrics_port, parts.checks)
    try:
        serve(app.answer, settings, threads)
    except (ConfigurationError, OSError) as exc:
        sys.exit(f"cannot listen on HOLDFAST_INGEST_HOST and HOLDFAST_INGEST_PORT, {settings.ingest_port}: {exc}")
    finally:
        threads.close()
        parts.close()


if __name__ == "__main__":
    main()
