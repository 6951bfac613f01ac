"""The duties of one process, on its connections."""

import time
from collections.abc import Callable, Collection, Mapping

from holdfast.domain.errors import (
    BrokerUnavailable,
    DatabaseUnavailable,
    LiveWindowUnavailable,
    StatementTooSlow,
    TransactionConflict,
)
from holdfast.maintenance import erase, gauges, groups, retain, schedule, windows
from holdfast.maintenance.count import count
from holdfast.maintenance.parts import parts
from holdfast.maintenance.presence import Presence, forget_gone_nodes
from holdfast.maintenance.recover import recover
from holdfast.maintenance.redispatch import redispatch
from holdfast.maintenance.relay import relay, snapshot_seconds
from holdfast.maintenance.replay import replay
from holdfast.maintenance.revocations import copy_revocations, prune_revocations
from holdfast.maintenance.summary import Summary
from holdfast.runtime import logging
from holdfast.runtime.health import Check
from holdfast.runtime.settings import MaintenanceSettings
from holdfast.runtime.telemetry import Log
from holdfast.storage.sweeps import due_sweeps

__all__ = ["Duties"]

log = logging.get(__name__)

RING_GRACE_SECONDS = 5.0
"""How long the doorbell of an event that is recorded here has before redispatch rings for it, as in ingest."""

MAX_ROUNDS = 20
"""Full batches that one turn of a duty takes on: a bound, so that a turn ends and the thread can stop."""


class Duties:
    """The duties and the gauges. Any number of processes may run them: locked rows are skipped.

    A duty does not raise for an outage: it logs the first turn that meets it, and the next turn tries again.
    """

    def __init__(self, settings: MaintenanceSettings) -> None:
        schedule.export_outcomes()
        self._settings = settings
        self._parts = parts(settings)
        self._groups = groups.Groups()
        self._presence = Presence(self._parts.database, host=settings.node_name)
        self._redispatched = Summary(Log.REDISPATCHED, time.monotonic)
        self._relayed = Summary(Log.RELAYED, time.monotonic)
        self._dropped = Summary(Log.DROPPED, time.monotonic)
        self._dedupe_seconds = settings.dedupe_days * 86_400.0
        self._outages: set[tuple[str, str]] = set()

    def sweeps(self) -> Mapping[str, Callable[[], int]]:
        """The duties that :meth:`due` speaks of, by name."""
        return {
            "recover": self.recover, "redispatch": self.redispatch, "relay": self.relay, "replay": self.replay,
            "count": self.count, "schedules": self.schedules, "retain": self.retain, "erase": self.erase,
        }  # fmt: skip

    def due(self) -> Collection[str]:
        """Which sweeps have something to do, in one round trip; all of them if nobody can say, so that each tells why."""
        names = self.sweeps()
        after = snapshot_seconds(self._settings.relay_after_seconds)
        try:
            due = due_sweeps(self._parts.database, after_seconds=after)
        except (DatabaseUnavailable, StatementTooSlow, TransactionConflict):
            return names
        # A sweep with nothing to do has no turn in which it would see that the outage is over.
        self._outages -= {(name, Log.DATABASE_UNAVAILABLE) for name in names}
        return [name for name in names if getattr(due, name)]

    def recover(self) -> int:
        """See ``maintenance.recover``. Returns how many."""
        return self._turn("recover", lambda limit: recover(self._parts.database, self._parts.announcer, limit=limit))

    def redispatch(self) -> int:
        """See ``maintenance.redispatch``. Returns how many."""
        count = self._turn("redispatch", lambda limit: redispatch(self._parts.database, self._parts.bell, limit=limit))
        self._redispatched.add(count)
        return count

    def relay(self) -> int:
        """See ``maintenance.relay``. Returns how many."""
        within = self._settings.relay_after_seconds
        count = self._turn(
            "relay",
            lambda limit: relay(self._parts.database, self._parts.publisher, within_seconds=within, limit=limit),
            rounds=1,
        )
        self._relayed.add(count)
        return count

    def replay(self) -> int:
        """See ``maintenance.replay``. Returns how many."""
        # Two turns' worth: one that comes a little late loses nothing of the rate.
        burst = 2 * max(1.0, self._settings.sweep_seconds)
        return self._turn("replay", lambda limit: replay(
            self._parts.database, self._parts.announcer, limit=limit, burst_seconds=burst, grace_seconds=RING_GRACE_SECONDS,
        ))  # fmt: skip

    def count(self) -> int:
        """See ``maintenance.count``. Returns how many."""
        return self._turn("count", lambda _: count(self._parts.database), rounds=1)

    def schedules(self) -> int:
        """See ``maintenance.schedule``. Returns how many had their turn."""
        return self._turn("schedules", lambda limit: schedule.record_ticks(
            self._parts.database, self._parts.announcer, limit=limit, grace_seconds=RING_GRACE_SECONDS,
        ))  # fmt: skip

    def retain(self) -> int:
        """See ``maintenance.retain``. Returns how many events went."""
        count = self._turn("retain", lambda limit: retain.retain(
            self._parts.database, default_days=self._settings.retention_days, dedupe_seconds=self._dedupe_seconds,
            limit=limit,
        ), rounds=1)  # fmt: skip
        self._dropped.add(count)
        return count

    def erase(self) -> int:
        """See ``maintenance.erase``. Returns how many erasures had their turn."""
        return self._turn("erase", lambda limit: erase.erase(
            self._parts.database, self._parts.announcer, self._parts.publisher, dedupe_seconds=self._dedupe_seconds,
            limit=limit,
        ), rounds=1)  # fmt: skip

    def plan_retention(self) -> int:
        """See ``maintenance.retain``."""
        days = self._settings.retention_days
        return self._turn(
            "plan_retention", lambda _: retain.plan_retention(self._parts.database, default_days=days), rounds=1
        )

    def forget_identities(self) -> int:
        """See ``maintenance.retain``. Returns how many."""
        return self._turn(
            "forget_identities", lambda limit: retain.forget_expired_identities(self._parts.database, limit=limit)
        )

    def copy_revocations(self) -> int:
        """See ``maintenance.revocations``. Returns how many."""
        copy = self._parts.revocations
        return self._turn(
            "copy_revocations", lambda limit: copy_revocations(self._parts.database, copy, limit=limit), rounds=1
        )

    def prune_revocations(self) -> int:
        """See ``maintenance.revocations``. Returns how many."""
        copy = self._parts.revocations
        return self._turn("prune_revocations", lambda limit: prune_revocations(self._parts.database, copy, limit=limit))

    def forget_gone_nodes(self) -> int:
        """See ``maintenance.presence``. Returns how many."""
        return self._turn(
            "forget_gone_nodes", lambda limit: forget_gone_nodes(self._parts.database, limit=limit), rounds=1
        )

    def forget_ended_windows(self) -> int:
        """See ``maintenance.windows``. Returns how many."""
        return self._turn("forget_ended_windows", lambda limit: windows.forget_ended(self._parts.database, limit=limit))

    def count_groups(self) -> int:
        """See ``maintenance.groups``. Returns how many members."""
        return self._turn("groups", lambda _: self._groups.count(self._parts.database, self._parts.announcer), rounds=1)

    def prune(self) -> int:
        """Everything that is to be forgotten, none of which is in a hurry. Returns how much."""
        self.plan_retention()
        gone = self.prune_revocations() + self.forget_gone_nodes() + self.forget_identities()
        return gone + self.forget_ended_windows()

    def measure(self) -> int:
        """See ``maintenance.gauges``; and say that this process runs. Returns how many events are open."""
        return self._turn("measure", lambda _: self._measure(), rounds=1)

    def checks(self) -> Mapping[str, Check]:
        """What readiness asks."""
        return self._parts.checks()

    def close(self) -> None:
        """Say goodbye, and let go of the connections."""
        self._presence.end()
        self._parts.close()

    def _measure(self) -> int:
        self._presence.beat()
        return gauges.measure(self._parts.database)

    def _turn(self, duty: str, run: Callable[[int], int], *, rounds: int = MAX_ROUNDS) -> int:
        """Repeat ``run`` while it finds full batches; returns the sum."""
        total, limit = 0, self._settings.sweep_limit
        try:
            for _ in range(rounds):
                done = run(limit)
                total += done
                if done < limit:
                    break
        except DatabaseUnavailable as exc:
            self._say(duty, Log.DATABASE_UNAVAILABLE, str(exc))
        except (BrokerUnavailable, LiveWindowUnavailable) as exc:
            self._say(duty, Log.REDIS_UNAVAILABLE, str(exc))
        else:
            self._outages -= {(duty, Log.DATABASE_UNAVAILABLE), (duty, Log.REDIS_UNAVAILABLE)}
        return total

    def _say(self, duty: str, event: str, reason: str) -> None:
        """A warning for the first turn of an outage; the turns after it, one a second, would drown everything else."""
        write = log.debug if (duty, event) in self._outages else log.warning
        self._outages.add((duty, event))
        write(event, duty=duty, reason=reason)
