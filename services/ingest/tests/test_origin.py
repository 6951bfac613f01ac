"""Where a request came from, and who is believed about it."""

from ipaddress import ip_network

import pytest

from holdfast.ingest.http.origin import origin_of

PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "origin"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "192.0.2.66, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "192.0.2.66, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "198.51.100.1, <script>", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, ", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("fd00::1", "2001:DB8::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("fe80::1%eth0", None, "fe80::1"),
        ("", "198.51.100.1", "unknown"),
    ],
)
def test_only_a_trusted_proxy_says_who_sent_a_request(peer: str, forwarded_for: str | None, origin: str) -> None:
    assert origin_of(peer, forwarded_for, PROXIES) == origin


def test_without_trusted_proxies_nobody_is_believed() -> None:
    assert origin_of("10.0.0.1", "198.51.100.1", []) == "10.0.0.1"


def test_a_chain_without_an_end_is_not_followed() -> None:
    assert origin_of("10.0.0.1", ", ".join(["198.51.100.1", *["10.0.0.2"] * 1000]), PROXIES) == "10.0.0.2"
