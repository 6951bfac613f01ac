"""Types of settings whose text is checked at the start: addresses, files with a secret, tenants, roles.

What they raise names the shape, and never a part of the value.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from holdfast.domain.encryption_keys import read_keys
from holdfast.domain.names import is_tenant

__all__ = [
    "TRACE_ID",
    "ConsoleUrl",
    "EncryptionKeys",
    "OtlpEndpoint",
    "ProviderUrl",
    "RedisUrl",
    "RoleMap",
    "SecretFile",
    "Tenant",
    "TraceUrl",
]

TRACE_ID = "{trace_id}"
"""Stands for the id in the address of a page that shows a trace."""

_REDIS_SHAPE = "it must look like redis://:password@host:6379/0 (rediss:// with TLS, unix:///path for a socket)"


def _redis_url(value: SecretStr) -> SecretStr:
    """Refuse what redis-py would only trip over later, with a traceback that quotes the address. Space around it is cut off.

    Raises:
        ValueError: with the shape, and never with a part of the address.
    """
    text = value.get_secret_value().strip()
    try:
        parts = urlsplit(text)
        is_database = re.fullmatch(r"/?[0-9]*", parts.path) is not None
        is_address = bool(parts.hostname) and is_database and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number: most often a "/" or "#" of a password that is not percent-encoded
        raise ValueError(f"percent-encode special characters of the password; {_REDIS_SHAPE}") from None
    if any(character.isspace() for character in text):
        raise ValueError(f"it has white space in it; {_REDIS_SHAPE}")
    if parts.scheme not in {"redis", "rediss", "unix"} or not (is_address or (parts.scheme == "unix" and parts.path)):
        raise ValueError(_REDIS_SHAPE)
    return SecretStr(text)


def _web_address(text: str) -> SplitResult | None:
    """The parts of an address of the web with a host and a usable port; ``None`` of anything else."""
    try:
        parts = urlsplit(text)
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if is_usable else None


def _otlp_endpoint(value: str) -> str:
    """Refuse at the start what would be a failed export each second.

    Raises:
        ValueError: with the shape, and never with a part of the address.
    """
    parts = _web_address(value.strip())
    if parts is None or parts.query or parts.fragment:
        raise ValueError("it must look like http://collector:4318, the collector's address for OTLP over HTTP")
    return value.strip()


def _trace_url(value: str) -> str:
    """Refuse an address that leads nowhere.

    Raises:
        ValueError: with the shape.
    """
    text = value.strip()
    parts = _web_address(text)
    if parts is None or "@" in parts.netloc or text.count(TRACE_ID) != 1 or not text.isprintable() or " " in text:
        raise ValueError(f"it must look like https://traces.example.com/trace/{TRACE_ID}, with {TRACE_ID} once")
    return text


def _safe_address(value: str) -> str:
    """Refuse an address to which secrets must not go, and one that is none.

    Raises:
        ValueError: with the shape, and never with a part of the address.
    """
    text = value.strip()
    parts = _web_address(text)
    is_plain = text.isascii() and text.isprintable() and " " not in text
    if parts is None or not is_plain or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("it must look like https://login.example.com, without user, query and fragment")
    if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
        raise ValueError("it must begin with https://; http:// is for addresses of this machine alone")
    return text


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _console_origin(value: str) -> str:
    parts = urlsplit(_safe_address(value))
    if parts.path.rstrip("/") not in ("", "/console"):
        raise ValueError("the console is at /console of a host; give https://events.example.com")
    return f"{parts.scheme}://{parts.netloc}"


def _roles(value: object) -> object:
    """``group:role,group:role`` as a mapping. A group may have colons in it, and no comma."""
    if not isinstance(value, str):
        return value
    pairs = [each.strip().rpartition(":") for each in value.split(",") if each.strip()]
    if not all(group and role for group, _, role in pairs):
        raise ValueError("it must look like holdfast-admins:admin,support:viewer")
    return {group: role for group, _, role in pairs}


def _secret_file(path: Path) -> Path:
    try:
        content = path.read_text().strip()
    except (OSError, ValueError) as exc:
        raise ValueError(f"the file cannot be read: {type(exc).__name__}") from None
    if not content:
        raise ValueError("the file is empty")
    return path


def _tenant(value: str) -> str:
    if not is_tenant(value):
        raise ValueError("a tenant has up to 63 letters, digits, dots, dashes and underscores")
    return value


def _encryption_keys(value: SecretStr) -> SecretStr:
    """Refuse at the start what could seal nothing.

    Raises:
        ValueError: with the shape, and never with a part of a key.
    """
    read_keys(value.get_secret_value())
    return value


EncryptionKeys = Annotated[SecretStr, AfterValidator(_encryption_keys)]
"""``domain.encryption_keys`` says how they are written."""

RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]

OtlpEndpoint = Annotated[str, AfterValidator(_otlp_endpoint)]

TraceUrl = Annotated[str, AfterValidator(_trace_url)]

ProviderUrl = Annotated[str, AfterValidator(_safe_address)]
"""``https://…``, or ``http://`` of this machine."""

ConsoleUrl = Annotated[str, AfterValidator(_console_origin)]
"""Scheme, host and port alone."""

SecretFile = Annotated[Path, AfterValidator(_secret_file)]

Tenant = Annotated[str, AfterValidator(_tenant)]

RoleMap = Annotated[dict[str, Literal["viewer", "operator", "admin"]], NoDecode, BeforeValidator(_roles)]
"""Value of a claim → role."""
