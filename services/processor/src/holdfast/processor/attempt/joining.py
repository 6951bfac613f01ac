"""Ends of attempts that need no transaction of their own: those of several threads are committed and published together."""

from collections.abc import Sequence

from holdfast.domain.transitions import Transition
from holdfast.domain.update import Update
from holdfast.messaging.announce import Announcer
from holdfast.runtime.group_commit import GroupCommit
from holdfast.storage import lifecycle
from holdfast.storage.database import Database

__all__ = ["Joined"]

MOST_TOGETHER = 64
"""Transitions of one transaction: more than threads in a process are worth having."""


class Joined:
    """Applies transitions for one process, from any number of threads.

    Args:
        owner: names the process in recorded errors.
    """

    def __init__(self, database: Database, announcer: Announcer, *, owner: str) -> None:
        self._database = database
        self._announcer = announcer
        self._owner = owner
        self._group: GroupCommit[Transition, Update | None, Update | None] = GroupCommit(
            self._commit, self._publish, weigh=lambda _: 1, most=MOST_TOGETHER
        )

    def apply(self, transition: Transition) -> Update | None:
        """Apply, commit and publish; ``None`` where a guard says no: the lease was lost, say.

        One that fails takes no other along: each of its neighbours is then tried in a transaction of its own.

        Raises:
            AlreadyProcessed: as ``lifecycle.apply``.
            DatabaseUnavailable: nothing is known of what was committed.
            StatementTooSlow: nothing was.
        """
        return self._group.add(transition)

    def _commit(self, transitions: Sequence[Transition]) -> list[Update | None]:
        updates = self._database.call(lifecycle.apply, transitions, worker=self._owner)
        # By its event: no two attempts of one process have the same one at the same moment, and of two that had the token
        # lets one pass.
        moved = {update.event_id: update for update in updates}
        return [moved.pop(transition.event_id, None) for transition in transitions]

    def _publish(self, updates: Sequence[Update | None]) -> Sequence[Update | None]:
        self._announcer.publish([update for update in updates if update is not None])
        return updates
