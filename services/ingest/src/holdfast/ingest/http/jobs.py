"""Jobs on a set of events, which replays and discards are: counted, begun, found and cancelled for the key's tenant."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from holdfast.ingest.connection import reconnecting
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.http.views import missing, rfc3339
from holdfast.storage import replays
from holdfast.storage.audit import Actor
from holdfast.storage.filters import EventFilter
from holdfast.storage.replays import Action, JobState, NotStarted, Replay

__all__ = ["Jobs", "job_view", "shown_filter"]

_NAMES = {"ce_id": "id"}
"""What a filter's field is called in the API where storage has another name for it."""


@dataclass(frozen=True, slots=True)
class Jobs:
    """Those with one action.

    Args:
        name: what an answer calls one that is not there, and where its id comes from.
        refusals: code and detail of a 422.
        done: code and detail of the 409 when there is nothing left to cancel.
    """

    action: Action
    name: str
    refusals: Mapping[NotStarted, tuple[str, str]]
    done: tuple[str, str]

    def count(self, actor: Actor, chosen: EventFilter) -> int:
        """How many events it would have if it began now."""
        return reconnecting(lambda: parts().database.call(replays.count_matching, chosen, tenant=actor.tenant))

    def start(self, actor: Actor, chosen: EventFilter, *, rate_per_s: float, key: str) -> Replay:
        """Freeze the set and begin.

        Raises:
            Problem: 422.
        """
        return reconnecting(lambda: self._start(actor, chosen, rate_per_s, key))

    def find(self, actor: Actor, job_id: UUID) -> Replay:
        """How far it is.

        Raises:
            Problem: 404.
        """
        return self._present(
            reconnecting(
                lambda: parts().database.call(replays.find_replay, job_id, tenant=actor.tenant, action=self.action)
            )
        )

    def cancel(self, actor: Actor, job_id: UUID) -> Replay:
        """Stop it. What it has done stays so; stopping one that was stopped changes nothing.

        Raises:
            Problem: 404, or 409 for one that is done.
        """
        stopped = self._present(
            reconnecting(lambda: parts().database.call(replays.cancel, actor, job_id, action=self.action))
        )
        if stopped.state is JobState.DONE:
            raise Problem(409, *self.done)
        return stopped

    def _start(self, actor: Actor, chosen: EventFilter, rate_per_s: float, key: str) -> Replay:
        with parts().database.transaction() as session:
            begun = replays.start_replay(
                session, actor, chosen, rate_per_s=rate_per_s, idempotency_key=key, action=self.action
            )
            if isinstance(begun, NotStarted):  # raised within the transaction, so that nothing of it stays
                raise Problem(422, *self.refusals[begun])
        return begun

    def _present(self, found: Replay | None) -> Replay:
        if found is None:
            raise missing(self.name)
        return found


def shown_filter(job: Replay) -> dict[str, Any]:
    """The filter of a job by the names that the API has for it."""
    return {_NAMES.get(name, name): value for name, value in job.filter.items()}


def job_view(job: Replay) -> dict[str, Any]:
    """What every job shows."""
    return {
        "state": job.state,
        "filter": shown_filter(job),
        "total": job.total,
        "skipped": job.skipped,
        "remaining": job.total - job.replayed - job.skipped,
        "failures": job.failures,
        "last_error": job.last_error,
        "created_by": job.created_by,
        "created_by_name": job.created_by_name,
        "created_at": rfc3339(job.created_at),
        "finished_at": rfc3339(job.finished_at),
    }
