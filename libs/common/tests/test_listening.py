"""Listening sockets."""

import contextlib
import socket

import pytest

from holdfast.runtime.listening import open_listener


@pytest.mark.parametrize(("host", "client"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")])
def test_what_is_written_to_an_accepted_connection_does_not_wait_for_the_clients_acknowledgement(
    host: str, client: str
) -> None:
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(open_listener(host, 0))
        opened.enter_context(socket.create_connection((client, listener.getsockname()[1]), timeout=10))
        accepted = opened.enter_context(listener.accept()[0])
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
