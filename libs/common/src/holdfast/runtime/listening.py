"""Listening sockets, for IPv4 and IPv6 alike, and how many connections this process may hold."""

import resource
import socket

from holdfast.domain.errors import ConfigurationError

__all__ = ["connection_limit", "open_listener", "BACKLOG"]

BACKLOG = 2048
"""Connections that the kernel keeps while the process is busy. With fewer, a burst of hostile ones makes the kernel drop
the first packet of a good one, which then waits a second for its next try."""

RESERVED_DESCRIPTORS = 64
"""For databases, Redis, logs, and what is accepted before the limit can act."""


def open_listener(host: str, port: int) -> socket.socket:
    """Bind and listen. ``::`` serves IPv4 as well; brackets around an IPv6 address are allowed.

    Raises:
        ConfigurationError: the host is no address or name of this machine.
        OSError: the port is taken or not permitted.
    """
    name = host.removeprefix("[").removesuffix("]")
    try:
        found = socket.getaddrinfo(name or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise ConfigurationError(
            f"{host!r} is no address to listen on; use one like 127.0.0.1, ::1, 0.0.0.0 or ::"
        ) from exc
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    listener = socket.create_server(
        address[:2], family=family, backlog=BACKLOG,
        dualstack_ipv6=name == "::" and socket.has_dualstack_ipv6(),
    )  # fmt: skip
    # Accepted connections inherit it. asyncio sets it only on sockets made with IPPROTO_TCP, which create_server's are not;
    # without it an answer's body waits for the client to acknowledge its head, 40 ms and more.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def connection_limit(most: int) -> int:
    """At most ``most`` connections, and fewer where the process may not open that many descriptors."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return most
    return max(8, min(most, descriptors - RESERVED_DESCRIPTORS))
