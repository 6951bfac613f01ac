"""``python -m holdfast.gateway``: serve live clients until SIGTERM."""

import signal
import sys
from importlib.metadata import version
from types import FrameType

from holdfast.domain.errors import ConfigurationError
from holdfast.gateway.app import Gateway
from holdfast.gateway.transports.server import LiveServer, config
from holdfast.runtime import logging
from holdfast.runtime.health import serve_health
from holdfast.runtime.refusal import refuse
from holdfast.runtime.settings import GatewaySettings, load
from holdfast.runtime.telemetry import export_metrics

VERSION = version("holdfast-ws-gateway")

REVOKE_ELSEWHERE = (
    "nothing was revoked: revocations are kept in PostgreSQL, so ingest takes them. Use 'holdfast token revoke --sub …' or"
    " '--jti …' with an API key that has the scope operate, or POST /v1/tokens/revoke"
)


def main() -> int:
    """Return the exit status."""
    if sys.argv[1:2] == ["revoke"]:
        sys.stderr.write(f"{REVOKE_ELSEWHERE}\n")
        return 2
    try:
        return _serve(load(GatewaySettings))
    except ConfigurationError as exc:
        refuse(exc)


def _serve(settings: GatewaySettings) -> int:
    logging.configure(
        service="ws-gateway",
        version=VERSION,
        log_format=settings.log_format,
        level=settings.log_level,
        with_error_texts=settings.log_error_texts,
    )
    # uvicorn takes these over while it serves, and raises what it got again when it is done: then that means success.
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, _exit)
    export_metrics("gateway", version=VERSION)
    gateway = Gateway(settings)
    serve_health(settings.metrics_host, settings.metrics_port, gateway.checks, is_alive=gateway.is_alive)
    LiveServer(
        config(
            gateway.app,
            host=settings.gateway_host,
            port=settings.gateway_port,
            most_connections=settings.gateway_connections,
        ),
        gateway.clients,
    ).run()
    return 0


def _exit(_: int, __: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
