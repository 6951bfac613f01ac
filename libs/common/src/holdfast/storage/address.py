"""Addresses of PostgreSQL, as libpq reads them: several hosts, sockets, IPv6, services, every parameter.

SQLAlchemy's own reading of an address knows one host and drops what it does not know, so libpq's is used instead.
"""

import re
from urllib.parse import quote

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from holdfast.domain.errors import ConfigurationError

__all__ = ["Address", "parse_address"]

SCHEMES = ("postgresql://", "postgres://", "postgresql+psycopg2://")

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,30}):", re.IGNORECASE | re.ASCII)
_SHAPE = "it must look like postgresql://user:password@host:5432/name"


class Address:
    """Where a database is. Its text never shows the password."""

    def __init__(self, parameters: dict[str, str]) -> None:
        self.parameters = parameters
        """libpq's parameters (PostgreSQL documentation, "Parameter Key Words")."""

    @property
    def database(self) -> str | None:
        """The database's name, where the address gives one."""
        return self.parameters.get("dbname")

    def without_secrets(self, text: str) -> str:
        """A message of the driver or the server, with the password blotted out however it is spelled."""
        for name in ("password", "sslpassword"):
            if secret := self.parameters.get(name):
                for spelled in {secret, quote(secret), quote(secret, safe="")}:
                    text = text.replace(spelled, "***")
        return text

    def __str__(self) -> str:
        return make_dsn(**{name: value for name, value in self.parameters.items() if "password" not in name})


def parse_address(url: str) -> Address:
    """Read the address of a database. White space around it, such as a file's last newline, does not count.

    Raises:
        ConfigurationError: not the address of a PostgreSQL database; the message never repeats it.
    """
    text = url.strip()
    scheme = next((each for each in SCHEMES if text.startswith(each)), None)
    if scheme is None:
        named = _SCHEME.match(text)
        received = f"names {named[1]!r}" if named else "names no scheme"
        raise ConfigurationError(f"HOLDFAST_DATABASE_URL {received}, not postgresql://; {_SHAPE}")
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ConfigurationError(
            f"HOLDFAST_DATABASE_URL has white space or a control character in it; percent-encode it, and {_SHAPE}"
        )
    try:
        return Address(parse_dsn("postgresql://" + text.removeprefix(scheme)))
    except psycopg2.Error:
        # libpq's message quotes the part that it does not understand, which may be the password.
        raise ConfigurationError(
            f"HOLDFAST_DATABASE_URL is no address that libpq understands (percent-encode special characters); {_SHAPE}"
        ) from None
