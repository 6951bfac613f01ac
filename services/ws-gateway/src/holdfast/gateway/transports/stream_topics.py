"""The topics in the address of an event stream. Pure."""

import re
from urllib.parse import parse_qsl

from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Closing

__all__ = ["named_topics"]

_NEXT_TOPIC = re.compile(r",(?=event:|audience:|tenant:)")
"""A comma parts two topics only before another one: an audience may have commas in its name."""


def named_topics(query: bytes) -> list[str]:
    """The names in the order of the address: each ``topic`` is one, whatever is in it; ``topics`` are separated by commas.

    Raises:
        Closing: a name is not UTF-8.
    """
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise Closing(CloseCode.PROTOCOL, "the address is percent-encoded UTF-8") from None
    names: list[str] = []
    for name, value in pairs:
        if name == "topic":
            names.append(value)
        elif name == "topics":
            names += [part for part in _NEXT_TOPIC.split(value) if part]
    return names
