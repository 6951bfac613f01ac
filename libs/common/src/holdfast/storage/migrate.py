"""Bring a database up to date: Holdfast's own schema, then that of every installed handler package.

A handler package names its Alembic folder with an entry point of the group ``holdfast.migrations`` whose value is a
:class:`MigrationSource`. Each source keeps its own version table, so the packages' histories never mix.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from holdfast.domain.errors import ConfigurationError, DatabaseUnavailable
from holdfast.storage import claims, events, lifecycle, planned
from holdfast.storage.database import Database
from holdfast.storage.schema import OWN_VERSION_TABLE, applied_revision, check_server

__all__ = ["MigrationSource", "latest_revision", "sources", "upgrade", "upgrade_when_up"]

_ADVISORY_LOCK = 0x484F4C44
"""Any number that nobody else uses ("HOLD"): two migrations at once would race."""

_LOCK_TIMEOUT = "10s"
"""A migration that waits longer for a table lock would make every request behind it wait too: give up instead."""


@dataclass(frozen=True, slots=True)
class MigrationSource:
    """An Alembic folder: ``location`` is ``package:folder``, ``version_table`` its own table of applied revisions."""

    location: str
    version_table: str


OWN = MigrationSource("holdfast.storage:migrations", OWN_VERSION_TABLE)


def sources() -> list[MigrationSource]:
    """Holdfast's own source, then those of installed handler packages by name.

    Raises:
        ConfigurationError: an entry point that is not a :class:`MigrationSource`.
    """
    found = [OWN]
    for entry in sorted(entry_points(group="holdfast.migrations"), key=lambda entry: entry.name):
        source = entry.load()
        if not isinstance(source, MigrationSource):
            raise ConfigurationError(f"entry point holdfast.migrations/{entry.name} must name a MigrationSource")
        found.append(source)
    return found


def upgrade(url: str, *, report: Callable[[str], None] = lambda _: None) -> None:
    """Apply every missing migration, one process at a time. Applying none is a success.

    Raises:
        DatabaseUnavailable: PostgreSQL is not reachable, or a lock was not free in time.
        DatabaseUnsuitable: the database cannot hold every event; nothing was applied.
    """
    database = Database(url, application_name="holdfast-migrate", pool_size=1, statement_timeout_seconds=0)
    try:
        with database.transaction() as session:
            check_server(session)
            session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            session.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
            for source in sources():
                _upgrade_source(session.connection(), source)
                report(f"{source.location}: at {applied_revision(session, source.version_table)}")
            planned.create(session.connection(), [*events.PLANNED, *claims.PLANNED, *lifecycle.PLANNED])
    finally:
        database.close()


def upgrade_when_up(url: str, *, within_seconds: float, report: Callable[[str], None]) -> None:
    """:func:`upgrade`, tried again until the database answers.

    Raises:
        DatabaseUnavailable: it did not answer within ``within_seconds``.
    """
    deadline = time.monotonic() + within_seconds
    delay = 0.2
    while True:
        try:
            return upgrade(url, report=report)
        except DatabaseUnavailable:
            if time.monotonic() + delay > deadline:
                raise
            report("the database does not answer yet; trying again")
            time.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 (jitter, not a secret)
            delay = min(delay * 2, 3.0)


def latest_revision() -> str | None:
    """The newest revision that this release ships."""
    return ScriptDirectory.from_config(_config(OWN)).get_current_head()


def _upgrade_source(connection: Connection, source: MigrationSource) -> None:
    config = _config(source)
    config.attributes["connection"] = connection
    config.attributes["version_table"] = source.version_table
    command.upgrade(config, "head")


def _config(source: MigrationSource) -> Config:
    config = Config()
    config.set_main_option("script_location", source.location)
    config.set_main_option("path_separator", "os")
    return config
