"""Pure: the address that a request came from, and whom to believe about it."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

__all__ = ["Network", "origin_of"]

Network = IPv4Network | IPv6Network

MAX_HOPS = 32
"""Entries of X-Forwarded-For that are read, the nearest first: the rest is what strangers make up."""

UNKNOWN = "unknown"
"""Where the connection has no address, being gone already."""


def origin_of(peer: str, forwarded_for: str | None, trusted: Sequence[Network]) -> str:
    """Who sent a request: ``peer`` itself, or whom a trusted proxy names.

    ``X-Forwarded-For`` is read from its end, where each proxy has put the address that it saw. The first that is no trusted
    proxy is the sender; what stands before it is anybody's word. An entry that is no address ends the reading.
    """
    nearest = _address(peer)
    if nearest is None:
        return UNKNOWN
    hops = forwarded_for.rsplit(",", MAX_HOPS)[-MAX_HOPS:] if forwarded_for else []
    for hop in reversed(hops):
        if not _is_trusted(nearest, trusted):
            break
        before = _address(hop)
        if before is None:
            break
        nearest = before
    return str(nearest)


def _is_trusted(address: IPv4Address | IPv6Address, trusted: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in trusted)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address, perhaps with a port behind it as some proxies write it; IPv4 within IPv6 as IPv4, without a zone."""
    bare = text.strip()
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        found = ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found
