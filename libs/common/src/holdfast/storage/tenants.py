"""What an administrator of the installation sets for tenants: their share of the turns, and how old their backlog may be.

No key may do it: a tenant could raise its own share. Who has access to the database runs a command (``storage.__main__``).
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from holdfast.storage.audit import Actor, note
from holdfast.storage.backlog import backlog_of
from holdfast.storage.statements import statement

__all__ = [
    "HIGHEST_WEIGHT", "LONGEST_BACKLOG_SECONDS", "TenantSettings", "TenantStanding", "find_tenant", "list_tenants",
    "set_tenant", "standing",
]  # fmt: skip

HIGHEST_WEIGHT = 100

LONGEST_BACKLOG_SECONDS = 30 * 86_400.0

_FIND = statement("SELECT name, weight, backlog_seconds, updated_at FROM tenant WHERE name = :name")

_LIST = statement("SELECT name, weight, backlog_seconds, updated_at FROM tenant ORDER BY name")

_SET = statement("""
-- Parameters: name, weight, backlog_seconds.
INSERT INTO tenant (name, weight, backlog_seconds) VALUES (:name, :weight, :backlog_seconds)
ON CONFLICT (name) DO UPDATE SET weight = excluded.weight, backlog_seconds = excluded.backlog_seconds, updated_at = now()
RETURNING name, weight, backlog_seconds, updated_at
""")

_WAITING = statement("""
-- Parameters: tenant.
SELECT coalesce(CAST(sum(greatest(events, 0)) AS bigint), 0) FROM state_count
WHERE tenant = :tenant AND state IN {CLAIMABLE}
""")


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """Of one tenant. ``backlog_seconds``: ``None`` for what ingest is set to. ``updated_at``: ``None``: never set."""

    name: str
    weight: int = 1
    backlog_seconds: float | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TenantStanding:
    """Of one tenant. ``waiting``: events to be claimed, by counters that are seconds behind. ``oldest_due_seconds``: for how
    long the oldest due one has been waiting for a processor; 0 when none is.
    """

    settings: TenantSettings
    waiting: int
    oldest_due_seconds: float


def find_tenant(session: Session, name: str) -> TenantSettings:
    """What is set for a tenant, or the defaults."""
    row = session.execute(_FIND, {"name": name}).one_or_none()
    return TenantSettings(name) if row is None else TenantSettings(*row)


def list_tenants(session: Session) -> list[TenantSettings]:
    """Those for which something was set, by name."""
    return [TenantSettings(*row) for row in session.execute(_LIST)]


def set_tenant(session: Session, actor: Actor, *, weight: int, backlog_seconds: float | None) -> TenantSettings:
    """Set both for the actor's tenant, and write down who did. Processes go by it within some seconds."""
    parameters = {"name": actor.tenant, "weight": weight, "backlog_seconds": backlog_seconds}
    row = session.execute(_SET, parameters).one()
    note(session, actor, "set_tenant", detail={"weight": weight, "backlog_seconds": backlog_seconds})
    return TenantSettings(*row)


def standing(session: Session, name: str) -> TenantStanding:
    """How a tenant stands in the turns. Costs the same however many events wait."""
    waiting = int(session.execute(_WAITING, {"tenant": name}).scalar_one())
    return TenantStanding(find_tenant(session, name), waiting, backlog_of(session, name).age_seconds)
