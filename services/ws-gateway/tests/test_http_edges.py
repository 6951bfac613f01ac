"""What is said to requests that come in the wrong way, and through proxies."""

import contextlib
import http.client
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest


def ask(gateway: Any, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    address = urlsplit(gateway.http)
    with contextlib.closing(http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read(4096)


@pytest.mark.parametrize("path", ["/v1/live", "/v1/live/"])
def test_a_request_without_upgrade_is_told_what_a_proxy_needs(gateway: Any, path: str) -> None:
    status, headers, body = ask(gateway, "GET", path)

    assert (status, headers["upgrade"], headers["connection"]) == (426, "websocket", "Upgrade")
    assert headers["content-type"] == "application/problem+json"
    assert b"Connection: Upgrade" in body


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/live/sse/?topics=audience:a"), ("POST", "/v1/live/tickets/")]
)
def test_a_slash_at_the_end_is_no_redirect(gateway: Any, method: str, path: str) -> None:
    status, headers, _ = ask(gateway, method, path)

    assert status == 401
    assert "location" not in headers


def test_a_stream_asks_proxies_to_leave_it_alone(gateway: Any, tenant: Any) -> None:
    address = urlsplit(gateway.http)
    with contextlib.closing(http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)) as connection:
        connection.request(
            "GET", "/v1/live/sse?topics=audience:a", headers={"Authorization": f"Bearer {tenant.token()}"}
        )
        answer = connection.getresponse()
        first = answer.read(2100)

    assert "no-transform" in (answer.getheader("Cache-Control") or "")
    assert answer.getheader("X-Accel-Buffering") == "no"
    assert first.startswith(b":  "), "a proxy that collects the first 2 KiB has them at once"
    assert b"retry: " in first


def test_the_first_ticket_after_redis_dropped_its_connections(gateway: Any, tenant: Any) -> None:
    token = {"Authorization": f"Bearer {tenant.token()}"}
    for _ in range(5):
        assert ask(gateway, "POST", "/v1/live/tickets", **token)[0] == 201
        tenant.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        status, _, body = ask(gateway, "POST", "/v1/live/tickets", **token)

        assert status == 201, body


def test_a_head_that_is_too_long_is_refused(serve: Callable[..., Any]) -> None:
    address, status = serve(), 0

    with contextlib.suppress(ConnectionError):  # it may be gone before all of the head was sent
        status, _, _ = ask(address, "GET", "/livez", X_Long="x" * 600_000)

    assert status != 200
