"""Every exception that Holdfast raises on purpose.

::

    HoldfastError
    ├── ConfigurationError      a setting or a handler registration is wrong; the process must not start
    ├── InvalidPosition         a text that is not ``<epoch>:<offset>``
    ├── InvalidTopic            a text that is not ``event:<uuid>``, ``audience:<value>`` or ``tenant:<id>``
    ├── DatabaseUnavailable     PostgreSQL did not answer; nothing was decided, try again
    ├── StatementTooSlow        PostgreSQL cancelled a statement at its time limit; nothing was decided
    ├── SchemaOutdated          the database lacks a migration that this release needs
    ├── EffectsLost             the transaction of a handler's effects is over before it was settled
    ├── LeaseLost               another worker owns the event now; effects must be rolled back
    └── AlreadyProcessed        the processed-event log has the event; effects must be rolled back

Losing a race for a claim is not an error: it is an empty list.
"""

__all__ = [
    "HoldfastError",
    "ConfigurationError",
    "InvalidPosition",
    "InvalidTopic",
    "DatabaseUnavailable",
    "StatementTooSlow",
    "SchemaOutdated",
    "EffectsLost",
    "LeaseLost",
    "AlreadyProcessed",
]


class HoldfastError(Exception):
    """Root of the tree in this module's docstring."""


class ConfigurationError(HoldfastError):
    """A setting or a handler registration is wrong. The message names the remedy."""


class InvalidPosition(HoldfastError, ValueError):
    """A position that this system never issued."""


class InvalidTopic(HoldfastError, ValueError):
    """A topic name outside the three known kinds, or too long."""


class DatabaseUnavailable(HoldfastError):
    """PostgreSQL is down, restarting or unreachable. Retrying later is safe: the transaction did not commit."""


class StatementTooSlow(HoldfastError):
    """A statement reached its time limit and was cancelled; the transaction is rolled back. The server itself is there."""


class SchemaOutdated(HoldfastError):
    """The database is behind the release. Remedy: run the migrations."""


class EffectsLost(HoldfastError):
    """A handler ended the transaction that its effects belong to. They may be committed or gone."""


class LeaseLost(HoldfastError):
    """The lease token no longer fits: the event was recovered while this worker was away."""


class AlreadyProcessed(HoldfastError):
    """The processed-event log already has a row for the event."""
