"""Every exception that Holdfast raises on purpose.

::

    HoldfastError
    ├── ConfigurationError      a setting or a handler registration is wrong; the process must not start
    ├── InvalidPosition         a text that is not ``<epoch>:<offset>``
    ├── InvalidName             a name that is empty, too long or has control characters
    ├── InvalidSchedule         a cron expression or a time zone that nobody can follow
    ├── InvalidTopic            a text that is not ``event:<uuid>``, ``audience:<value>`` or ``tenant:<id>``
    ├── DatabaseUnavailable     PostgreSQL did not answer; nothing was decided, try again
    │   └── TransactionConflict it rolled back because of another transaction; try again at once
    ├── DatabaseUnsuitable      PostgreSQL answers, but Holdfast cannot run on this database
    ├── StatementTooSlow        PostgreSQL cancelled a statement at its time limit; nothing was decided
    ├── BrokerUnavailable       the broker did not take or hand out doorbells; events are found by other means
    ├── LiveWindowUnavailable   Redis did not take or hand out updates; PostgreSQL has them all
    ├── SchemaOutdated          the database lacks a migration that this release needs
    ├── KeyMissing              data is sealed under a key that this process lacks; it keeps until it is given the key
    ├── DataUnreadable          sealed data was changed, or its data key is gone; no attempt at it will succeed
    ├── IdentityTaken           a handler or an application made an event under the identity of another one
    ├── EffectsLost             the transaction of a handler's effects is over before it was settled
    ├── LeaseLost               another worker owns the event now; effects must be rolled back
    ├── LaneTaken               another worker took an event of the same subject at this moment; roll back, claim again
    └── AlreadyProcessed        the processed-event log has the event; effects must be rolled back

Losing a race for one event is not an error: it is an empty list.
"""

__all__ = [
    "HoldfastError",
    "ConfigurationError",
    "InvalidPosition",
    "InvalidName",
    "InvalidSchedule",
    "InvalidTopic",
    "DatabaseUnavailable",
    "TransactionConflict",
    "DatabaseUnsuitable",
    "StatementTooSlow",
    "BrokerUnavailable",
    "LiveWindowUnavailable",
    "SchemaOutdated",
    "KeyMissing",
    "DataUnreadable",
    "IdentityTaken",
    "EffectsLost",
    "LeaseLost",
    "LaneTaken",
    "AlreadyProcessed",
]


class HoldfastError(Exception):
    """Root of the tree in this module's docstring."""


class ConfigurationError(HoldfastError):
    """A setting or a handler registration is wrong. The message names the remedy."""


class InvalidPosition(HoldfastError, ValueError):
    """A position that this system never issued."""


class InvalidName(HoldfastError, ValueError):
    """A name outside the rule of ``domain.names``."""


class InvalidSchedule(HoldfastError, ValueError):
    """A schedule that cannot be followed: ``field`` is wrong, and the message says how, and what it takes."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field


class InvalidTopic(HoldfastError, ValueError):
    """A topic name outside the three known kinds, or too long."""


class DatabaseUnavailable(HoldfastError):
    """PostgreSQL is down, restarting or unreachable. Retrying later is safe: the transaction did not commit."""


class TransactionConflict(DatabaseUnavailable):
    """PostgreSQL rolled a transaction back to resolve a deadlock or a serialization failure. The server itself is there."""


class DatabaseUnsuitable(HoldfastError):
    """The database or its server cannot hold what Holdfast stores. The message names the remedy."""


class StatementTooSlow(HoldfastError):
    """A statement reached its time limit and was cancelled; the transaction is rolled back. The server itself is there."""


class BrokerUnavailable(HoldfastError):
    """The broker did not take or hand out doorbells. Events are found again by polling and redispatch."""


class LiveWindowUnavailable(HoldfastError):
    """Redis did not answer, or did not take an update or answer a reading of the live window.

    PostgreSQL has it all; try again later.
    """


class SchemaOutdated(HoldfastError):
    """The database is behind the release. Remedy: run the migrations."""


class KeyMissing(HoldfastError):
    """Data is sealed under a key that this process lacks. Nothing is lost: the message says which key to give it."""


class DataUnreadable(HoldfastError):
    """Sealed data does not open with its own key. The message says what was changed."""


class IdentityTaken(HoldfastError):
    """An event that a handler emits, or an application records, has the identity of one with other data.

    The message names both parts of the identity.
    """


class EffectsLost(HoldfastError):
    """A handler ended the transaction that its effects belong to. They may be committed or gone."""


class LeaseLost(HoldfastError):
    """The lease token no longer fits: the event was recovered while this worker was away."""


class LaneTaken(HoldfastError):
    """Two claims in one lane at the same moment: this one came second, and nothing of it was done."""


class AlreadyProcessed(HoldfastError):
    """The processed-event log already has a row for the event."""
