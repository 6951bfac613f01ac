"""A migrated database on a server without the services."""

from uuid import uuid4

from holdfast.local.servers import Postgres
from holdfast.storage.migrate import upgrade

__all__ = ["fresh_database"]


def fresh_database(server: Postgres) -> str:
    """Make a database with the newest schema; returns its name."""
    name = f"bench_{uuid4().hex[:8]}"
    server.execute(f'CREATE DATABASE "{name}"')
    upgrade(server.url(name))
    return name
