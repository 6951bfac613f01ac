"""What is said to requests that come in the wrong way, and through proxies."""

import contextlib
import http.client
import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from holdfast.local.servers import Valkey


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


def talk(address: Any, *, said: bytes) -> tuple[bytes, dict[str, Any]]:
    """Say something that is no whole request; the status line, and the problem document that ends the connection."""
    where = urlsplit(address.http)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=30) as connection:
        connection.sendall(said)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0], json.loads(body)


def test_a_request_that_does_not_end_is_a_problem_with_a_code(gateway: Any) -> None:
    line, problem = talk(gateway, said=b"GET /livez HTTP/1.1\r\nHost:")

    assert line == b"HTTP/1.1 408 Request Timeout"
    assert (problem["status"], problem["code"]) == (408, "request_timeout")


def test_a_connection_too_many_is_a_problem_with_a_code(start_gateway: Callable[..., Any], valkey: Valkey) -> None:
    gateway = start_gateway(valkey.url(), HOLDFAST_GATEWAY_CONNECTIONS="1")
    where = urlsplit(gateway.http)

    with contextlib.ExitStack() as opened:
        for _ in range(3):  # one of them is let in, once the connection that asked for readiness is gone
            opened.enter_context(socket.create_connection((where.hostname or "", where.port or 0), timeout=30))
        line, problem = talk(gateway, said=b"")

    assert line == b"HTTP/1.1 503 Service Unavailable"
    assert (problem["status"], problem["code"]) == (503, "too_many_connections")


def test_what_is_written_to_a_client_does_not_wait_for_its_acknowledgement(
    serve: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    address = serve()
    where = urlsplit(address.http)

    with socket.create_connection((where.hostname or "", where.port or 0), timeout=10):
        connections = address.server.server_state.connections
        eventually(lambda: len(connections) == 1, message="the connection is there")
        [connection] = connections
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
