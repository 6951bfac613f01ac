"""Ports of the loopback interface that nobody else takes."""

import itertools
import os
import random
import socket
import sys
from collections.abc import Iterator

from holdfast.local.process import StartFailed

__all__ = ["claim", "free_port"]

PORTS = range(15_000, 30_000)
"""Below what kernels give to outgoing connections (from 32768 on Linux): while a server is down nobody's connection takes its
port, and what is free now is still free when the server gets to it.
"""

SHARES = 32
"""Processes that look for ports at once have shares of their own: none takes what another one has just found."""


def _share() -> Iterator[int]:
    """The ports of this process's share, in any order, over and over: one that was given is not given again soon."""
    ports = list(PORTS[os.getpid() % SHARES :: SHARES])
    random.shuffle(ports)
    return itertools.cycle(ports)


_own_ports = _share()


def free_port(preferred: int = 0) -> int:
    """``preferred`` if nobody listens there, else any free port of the loopback interface.

    Raises:
        StartFailed: there is none.
    """
    for port in itertools.chain([preferred] if preferred else [], itertools.islice(_own_ports, 200)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise StartFailed("no free port on the loopback interface")


def claim(port: int) -> socket.socket | None:
    """Keep other stacks on this machine off a port while the returned socket is open; ``None`` if another one does that.

    Seconds pass between finding a port free and a server's listening there. On Linux a name without a file stands for the
    port: it is of the same network namespace and vanishes with its process. Elsewhere nothing is kept.
    """
    holding = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if sys.platform == "linux":
            holding.bind(f"\0holdfast-port-{port}")
    except OSError:
        holding.close()
        return None
    return holding
