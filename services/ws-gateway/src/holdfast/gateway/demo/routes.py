"""The demo as routes of the gateway, where ``HOLDFAST_GATEWAY_DEMO=true`` asks for it."""

from starlette.routing import BaseRoute

from holdfast.gateway.demo.ingest import Ingest
from holdfast.gateway.demo.page import page_routes
from holdfast.gateway.demo.shop import Shop
from holdfast.runtime.settings import GatewaySettings

__all__ = ["demo_routes"]


def demo_routes(settings: GatewaySettings) -> list[BaseRoute]:
    """None unless they are asked for.

    Raises:
        ConfigurationError: the address of ingest is none.
    """
    if not settings.gateway_demo:
        return []
    ingest = Ingest(settings.gateway_demo_ingest_url, settings.gateway_demo_key_file)
    return page_routes(Shop(ingest, lease_seconds=settings.lease_seconds).routes())
