"""Key-encryption keys as text: ``hfk1_`` and 32 random bytes in URL-safe base64 without padding, 48 characters. Pure.

The version in the prefix says what the bytes are for: 1 is AES-256-GCM. The prefix also lets scanners for secrets find a key.
"""

import base64
import binascii
import hmac
import re

__all__ = ["KEY_BYTES", "key_id", "key_text", "read_keys"]

KEY_BYTES = 32

MOST_KEYS = 10
"""More than one are there only while a key is replaced."""

_SHAPE = re.compile(r"hfk1_[A-Za-z0-9_-]{43}")


def key_text(key: bytes) -> str:
    """A key as it stands in a setting."""
    return "hfk1_" + base64.urlsafe_b64encode(key).decode().rstrip("=")


def key_id(key: bytes) -> str:
    """16 hexadecimal digits that name a key and say nothing about it: the beginning of an HMAC-SHA-256 with it."""
    return hmac.digest(key, b"holdfast key id 1", "sha256")[:8].hex()


def read_keys(text: str) -> tuple[bytes, ...]:
    """The keys of a setting, separated by commas; the first one is the current one.

    Raises:
        ValueError: with the shape, and never with a part of the text.
    """
    listed = [each.strip() for each in text.split(",") if each.strip()]
    if not 1 <= len(listed) <= MOST_KEYS:
        raise ValueError(f"it has 1 to {MOST_KEYS} keys with commas between them; {_REMEDY}")
    keys = tuple(_read(each, place) for place, each in enumerate(listed, 1))
    if len(set(keys)) < len(keys):
        raise ValueError("a key is in it twice")
    return keys


_REMEDY = "'python -m holdfast.storage encryption new-key' makes one"


def _read(text: str, place: int) -> bytes:
    if _SHAPE.fullmatch(text) is None:
        raise ValueError(f"key {place} is not 'hfk1_' and 43 letters, digits, dashes and underscores; {_REMEDY}")
    try:
        key = base64.urlsafe_b64decode(text.removeprefix("hfk1_") + "=")
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"key {place} is not {KEY_BYTES} bytes in base64; {_REMEDY}")
    return key
