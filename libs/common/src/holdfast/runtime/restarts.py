"""When to start again what died: soon, and with growing patience when it keeps dying."""

__all__ = ["Restarts"]


class Restarts:
    """Decides for one process; told of its life and death with a monotonic clock's seconds.

    Args:
        first_seconds: wait before the first restart. It doubles with each death.
        cap_seconds: the longest wait. A process that has lived for twice as long starts over with ``first_seconds``.
    """

    def __init__(self, first_seconds: float, cap_seconds: float) -> None:
        self._first_seconds = first_seconds
        self._cap_seconds = cap_seconds
        self._wait_seconds = first_seconds
        self._living_since: float | None = None
        self._due_at: float | None = None

    def note_running(self, now: float) -> None:
        """It runs, or has just been started."""
        self._due_at = None
        if self._living_since is None:
            self._living_since = now
        elif now - self._living_since > 2 * self._cap_seconds:
            self._wait_seconds = self._first_seconds

    def note_death(self, now: float) -> float | None:
        """It does not run. Returns the wait that begins now, or ``None`` when the death is already known."""
        if self._due_at is not None:
            return None
        self._living_since = None
        wait_seconds = self._wait_seconds
        self._due_at = now + wait_seconds
        self._wait_seconds = min(2 * wait_seconds, self._cap_seconds)
        return wait_seconds

    def is_due(self, now: float) -> bool:
        """Whether the wait is over."""
        return self._due_at is not None and now >= self._due_at
