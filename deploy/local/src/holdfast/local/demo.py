"""What ``make run`` shows: events are sent, and their live updates appear as they happen."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from holdfast.client import ApiProblem, Client, ClientError, Sent, Status, Subscribed, UpdateReceived, watch
from holdfast.client.render import update_line
from holdfast.local.stack import TENANT, Stack

__all__ = ["Summary", "run_show", "show"]

PATIENCE_SECONDS = 60.0
"""Without any update for so long the demo stops waiting for the rest."""

SETTLED = ("processed", "dead")

Say = Callable[[str | Text], None]


@dataclass(slots=True)
class Summary:
    """What became of the events that were sent."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    waiting: set[str] = field(default_factory=set)
    states: Counter[str] = field(default_factory=Counter)
    is_sent: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether everything that was sent is settled."""
        return self.is_sent and not self.waiting

    def __str__(self) -> str:
        states = ", ".join(f"{self.states[state]} {state}" for state in SETTLED)
        line = f"{self.accepted} events accepted ({self.duplicates} of them duplicates), {self.rejected} rejected: {states}"
        return line + (f", {len(self.waiting)} still open" if self.waiting else "")


def run_show(stack: Stack, events: Iterable[dict[str, Any]], say: Say) -> Summary:
    """:func:`show` in an event loop of its own."""
    return asyncio.run(show(stack, events, say))


async def show(stack: Stack, events: Iterable[dict[str, Any]], say: Say) -> Summary:
    """Subscribe, send, and say every update until all events are settled."""
    summary = Summary()
    settled: dict[str, str] = {}
    news: asyncio.Queue[Sent | ApiProblem | ClientError | None] = asyncio.Queue()
    topic = f"tenant:{TENANT}"
    with Client(stack.ingest_url, stack.api_key) as client:
        frames = watch(stack.live_url, lambda: client.token([topic]).token, topics=[topic])
        watching = asyncio.create_task(_watch(frames, settled, lambda: _send(client, events, news), say))
        try:
            while not summary.is_complete:
                await _take(news, summary, settled, say)
        except TimeoutError:
            say(f"no news for {PATIENCE_SECONDS:.0f} s")
        finally:
            watching.cancel()
    return summary


async def _take(news: "asyncio.Queue[Any]", summary: Summary, settled: dict[str, str], say: Say) -> None:
    """Take in one answer, or what has been settled since the last look."""
    known = len(settled)
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while news.empty() and len(settled) == known and not summary.is_complete:
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.02)
        _settle(summary, settled)
    if not news.empty():
        _count(news.get_nowait(), summary, say)
    _settle(summary, settled)


def _settle(summary: Summary, settled: dict[str, str]) -> None:
    for event_id in summary.waiting & settled.keys():
        summary.waiting.discard(event_id)
        summary.states[settled[event_id]] += 1


def _count(answer: Sent | ClientError | None, summary: Summary, say: Say) -> None:
    if answer is None:
        summary.is_sent = True
    elif isinstance(answer, ClientError):
        summary.rejected += 1
        say(str(answer))
    else:
        summary.accepted += 1
        summary.duplicates += answer.is_duplicate
        if answer.state in SETTLED:
            summary.states[answer.state] += 1
        else:
            summary.waiting.add(answer.event_id)


async def _watch(frames: Any, settled: dict[str, str], subscribed: Callable[[], None], say: Say) -> None:
    is_sending = False
    async for frame in frames:
        if isinstance(frame, Subscribed) and not is_sending:
            is_sending = True
            subscribed()
        elif isinstance(frame, UpdateReceived):
            say(update_line(frame.event))
            if frame.event["state"] in SETTLED:
                settled[frame.event["id"]] = frame.event["state"]
        elif isinstance(frame, Status):
            say(f"live updates are {frame.state}")


def _send(client: Client, events: Iterable[dict[str, Any]], news: "asyncio.Queue[Any]") -> None:
    """Send from a thread of its own, which does not keep the process from ending."""
    loop = asyncio.get_running_loop()

    def work() -> None:
        for event in events:
            try:
                answer: Sent | ClientError = client.send(event)
            except ClientError as exc:
                answer = exc
            loop.call_soon_threadsafe(news.put_nowait, answer)
        loop.call_soon_threadsafe(news.put_nowait, None)

    threading.Thread(target=work, name="sender", daemon=True).start()
