"""Count members of groups that ended with a processor of the release before, which does not count them."""

from uuid import UUID

from holdfast.domain.event import Doorbell
from holdfast.messaging.announce import Announcer
from holdfast.storage.database import Database
from holdfast.storage.uncounted import START, count_uncounted

__all__ = ["Groups"]

MOST_GROUPS = 100
"""Looked at in one transaction: each has up to a thousand members, each of which is a look-up."""

MOST_PAGES = 10
"""Transactions of one turn."""


class Groups:
    """Passes over the open groups; one for each process, which knows how far its pass is."""

    def __init__(self, *, most_groups: int = MOST_GROUPS) -> None:
        self._most_groups = most_groups
        self._after: UUID = START

    def count(self, database: Database, announcer: Announcer) -> int:
        """Look at the next open groups; returns how many members were counted.

        Raises:
            DatabaseUnavailable, StatementTooSlow, TransactionConflict: the next turn goes on with the same groups.
        """
        members = 0
        for _ in range(MOST_PAGES):
            members += self._count_page(database, announcer)
            if self._after == START:
                break
        return members

    def _count_page(self, database: Database, announcer: Announcer) -> int:
        counted = database.call(count_uncounted, after=self._after, limit=self._most_groups)
        self._after = counted.last_id or START
        updates = [each.update for each in counted.completed]
        announcer.publish(updates)
        announcer.ring([Doorbell(update.event_id, update.version) for update in updates])
        return counted.members
