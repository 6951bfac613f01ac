"""The steps of one attempt: done once, and read by every attempt that follows."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from holdfast.domain.duration import seconds_of
from holdfast.domain.event import canonical_json
from holdfast.domain.retry import MAX_RETRY_SECONDS
from holdfast.processor.attempt.results import checked_result
from holdfast.processor.handlers.outcomes import InvalidResult
from holdfast.processor.handlers.steps import Sleeping
from holdfast.storage.steps import MOST_STEPS, DoneStep, NewStep

__all__ = ["MAX_NAME", "MAX_STEPS_BYTES", "AttemptSteps", "Notebook"]

MAX_NAME = 100
"""Characters of a step's name."""

MAX_STEPS_BYTES = 4 * 1024 * 1024
"""Results of all steps of one event: an attempt reads them at once."""


class Notebook(Protocol):
    """Where steps are kept."""

    def check(self) -> None:
        """Raise what has ended the attempt's steps before, or ends them now."""

    def done(self) -> Sequence[DoneStep]:
        """The steps of the attempts before."""

    def store(self, step: NewStep) -> None:
        """Keep a step: when this returns it is committed."""

    def fall_asleep(self, seconds: float) -> Sleeping | None:
        """Note that the attempt is over; what to raise in the handler. ``None``: nobody waits, as in tests."""

    def note_reused(self) -> None:
        """The result of an attempt before was taken."""


class AttemptSteps:
    """``ctx.step`` and ``ctx.sleep`` of one attempt, from any number of threads that its handler has."""

    def __init__(self, notebook: Notebook) -> None:
        self._notebook = notebook
        self._lock = threading.Lock()
        self._known: dict[str, tuple[DoneStep, float]] | None = None
        """With the moment at which it was read, in seconds of the monotonic clock."""
        self._used: set[str] = set()
        self._bytes = 0

    def run(self, name: str, function: Callable[[], Any]) -> Any:
        """What the step returned, now or in an attempt before.

        Raises:
            ValueError, TypeError, InvalidResult: see ``Context.step``; or whatever the function raises.
            Stopped, Sleeping: the attempt is over.
        """
        if not callable(function):
            raise TypeError(
                f"ctx.step({name!r:.120}, …) takes a function to call, such as lambda: …; not {function!r:.100}"
            )
        known = self._begin(name)
        if known is not None:
            return self._reuse(name, known[0])
        started = time.monotonic()
        try:
            result = function()
        except BaseException:
            with self._lock:
                self._used.discard(name)  # nothing is stored: the handler may try the step again
            raise
        text = self._text_of(name, result)
        duration_ms = int((time.monotonic() - started) * 1000)
        self._notebook.store(NewStep(name=name, result=text, duration_ms=duration_ms))
        return json.loads(text)

    def sleep(self, duration: object, name: str) -> None:
        """Return if the sleep is over.

        Raises:
            ValueError: see ``Context.sleep``.
            Stopped, Sleeping: the attempt is over.
        """
        seconds = min(MAX_RETRY_SECONDS, seconds_of(duration))
        known = self._begin(name)
        if known is None:
            self._notebook.store(NewStep(name=name, sleep_seconds=seconds))
            left = seconds
        else:
            step, read_at = known
            if step.sleeps_seconds is None:
                raise ValueError(f"{name!r} was a step of an attempt before and is a sleep now; give it another name")
            left = step.sleeps_seconds - (time.monotonic() - read_at)
            self._notebook.note_reused()
        if left > 0 and (asleep := self._notebook.fall_asleep(left)) is not None:
            raise asleep

    def _begin(self, name: str) -> tuple[DoneStep, float] | None:
        """Take a name; what is known under it."""
        _check_name(name)
        with self._lock:
            self._notebook.check()
            if self._known is None:
                steps, read_at = self._notebook.done(), time.monotonic()
                self._known = {step.name: (step, read_at) for step in steps}
                self._bytes = sum(len((step.result or "").encode()) for step in steps)
            if name in self._used:
                raise ValueError(
                    f"two steps of this attempt are named {name!r}: an attempt after this one could not tell them apart;"
                    f' give each its own name, in a loop such as f"{name}-{{number}}"'
                )
            if name not in self._known and len(self._used | self._known.keys()) >= MOST_STEPS:
                raise ValueError(f"an event has at most {MOST_STEPS} steps; do more in one step, or emit events")
            self._used.add(name)
            return self._known.get(name)

    def _reuse(self, name: str, step: DoneStep) -> Any:
        if step.result is None:
            raise ValueError(f"{name!r} was a sleep of an attempt before and is a step now; give it another name")
        self._notebook.note_reused()
        return json.loads(step.result)

    def _text_of(self, name: str, result: Any) -> str:
        text = canonical_json(checked_result(result, of=f"the step {name!r}"))
        with self._lock:
            self._bytes += len(text.encode())
            if self._bytes > MAX_STEPS_BYTES:
                raise InvalidResult(
                    f"the steps of an event have at most {MAX_STEPS_BYTES} bytes together; return references to results"
                )
        return text


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise ValueError(f'a step\'s name is 1 to {MAX_NAME} printable characters, such as "charge"; not {name!r:.120}')
