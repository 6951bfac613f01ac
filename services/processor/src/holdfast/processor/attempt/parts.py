"""What an executor is made of."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from holdfast.messaging.announce import Announcer
from holdfast.processor.attempt import async_ends, fanning_out
from holdfast.processor.attempt.batch_transaction import BatchTransactions
from holdfast.processor.attempt.batching import Batches
from holdfast.processor.attempt.cancelling import Cancels
from holdfast.processor.attempt.claiming import Claimer, Wake
from holdfast.processor.attempt.coroutines import Coroutines
from holdfast.processor.attempt.endings import Endings
from holdfast.processor.attempt.heartbeat import Heartbeat
from holdfast.processor.attempt.interruption import Interruptions
from holdfast.processor.attempt.joining import Joined, Undecided
from holdfast.processor.attempt.releasing import Releaser
from holdfast.processor.attempt.run import Runner
from holdfast.processor.attempt.settling import Settler
from holdfast.processor.handlers.registry import Handlers
from holdfast.storage.database import Database

__all__ = ["Parts", "parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    """In the order in which an event passes them: claimed, run and settled, ended or released."""

    claimer: Claimer
    fan_out: fanning_out.FanOut
    interruptions: Interruptions
    heartbeat: Heartbeat
    cancels: Cancels
    settler: Settler
    coroutines: Coroutines
    joined: Joined
    endings: Endings
    batches: Batches
    releaser: Releaser


def parts(
    handlers: Handlers, *, claims: Database, effects: Database, announcer: Announcer, owner: str, lease_seconds: float,
    no_handler_seconds: float, draw: Callable[[], float], wake: Wake, on_stuck: Callable[[], None],
    is_async_full: Callable[[], bool], undecided: Undecided, is_logging_texts: bool, pools: Collection[str],
) -> Parts:  # fmt: skip
    """Make them, see ``Executor``. Nothing runs yet."""
    claimer = Claimer(
        handlers, claims, owner=owner, lease_seconds=lease_seconds, no_handler_seconds=no_handler_seconds,
        publish=announcer.publish, wake=wake, pools=pools, is_async_full=is_async_full,
    )  # fmt: skip
    interruptions = Interruptions()
    joined = Joined(effects, announcer, owner=owner, undecided=undecided, call_next=claimer.call_next)
    heartbeat = Heartbeat(claimer.extend, interruptions, lease_seconds=lease_seconds, on_stuck=on_stuck)
    runner = Runner(announcer, interruptions, heartbeat)
    releaser = Releaser(effects, announcer, owner=owner, draw=draw)
    endings = Endings(joined, claimer, draw=draw, with_texts=is_logging_texts)
    return Parts(
        claimer=claimer,
        fan_out=fanning_out.FanOut(handlers, effects, announcer),
        interruptions=interruptions,
        heartbeat=heartbeat,
        cancels=Cancels(
            claimer.cancelled,
            heartbeat,
            interruptions,
            end_without=lambda running: claimer.call_next(releaser.cancelled(running, dict(heartbeat.cancelled_by))),
        ),
        settler=Settler(effects, runner, interruptions),
        coroutines=Coroutines(
            effects,
            runner,
            interruptions,
            heartbeat,
            async_ends.AsyncEnds(endings, releaser, settle=joined.settle),
            is_needed=any(each.is_async for each in handlers),
        ),
        joined=joined,
        endings=endings,
        batches=Batches(
            handlers, BatchTransactions(effects, runner, endings, owner=owner), announcer, endings, releaser
        ),
        releaser=releaser,
    )
