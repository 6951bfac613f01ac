"""Names that others choose: audiences, token subjects and token ids, tenants. One rule for every place that takes one.

A name is compared byte by byte in UTF-8: two Unicode spellings that look alike are two names.
"""

import re

from holdfast.domain.errors import InvalidName

__all__ = ["MAX_NAME_BYTES", "check_name", "is_tenant", "is_text"]

MAX_NAME_BYTES = 255
"""In UTF-8. Bounds the Redis keys, index entries and frames that one name can cause."""

_NO_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)


def is_text(value: str) -> bool:
    """Whether a text has neither control characters (Unicode category Cc) nor halves of surrogate pairs (Cs).

    Everything else is text, joiners and other invisible characters too: names and emoji of many languages need them.
    ``str.isprintable`` is another rule, which refuses those.
    """
    return _NO_TEXT.search(value) is None


def check_name(value: str) -> str:
    """Return ``value`` if it is a name.

    Raises:
        InvalidName: it is empty or too long, or has characters that :func:`is_text` refuses.
    """
    if not is_text(value):
        raise InvalidName("a name has no control characters and no half of a surrogate pair")
    if not 0 < len(value.encode()) <= MAX_NAME_BYTES:
        raise InvalidName(f"a name has 1 to {MAX_NAME_BYTES} bytes in UTF-8, and this one has {len(value.encode())}")
    return value


def is_tenant(value: str) -> bool:
    """Whether a text can be a tenant: 1 to 63 ASCII letters, digits, dots, dashes and underscores.

    It has no colon, so that no tenant's names in Redis run into another's.
    """
    return _TENANT.fullmatch(value) is not None
