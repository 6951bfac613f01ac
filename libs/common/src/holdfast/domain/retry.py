"""When a failed attempt is tried again."""

from dataclasses import dataclass

from holdfast.domain.errors import ConfigurationError

__all__ = ["DEFAULT_BACKOFF", "MAX_RETRY_SECONDS", "Backoff"]

MAX_RETRY_SECONDS = 365 * 24 * 3600.0
"""A year: nobody means more, and PostgreSQL's intervals and timestamps end somewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential backoff with full jitter: a uniform draw from nothing up to ``min(cap, first * factor^(attempt-1))``.

    Full jitter spreads the retries of many events that failed together best and costs the least work in total
    (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

    Attributes:
        first: longest wait after the first attempt, in seconds.
        factor: growth per attempt, at least 1.
        cap: longest wait ever, in seconds; at most a year.
        attempts: attempts in total, the first one included.

    Raises:
        ConfigurationError: a value out of range.
    """

    first: float = 2.0
    factor: float = 3.0
    cap: float = 900.0
    attempts: int = 8

    def __post_init__(self) -> None:
        # In this form what is no number at all (NaN) is refused too.
        if not (0 <= self.first <= self.cap <= MAX_RETRY_SECONDS and self.factor >= 1 and self.attempts >= 1):
            raise ConfigurationError(
                "a Backoff needs 0 <= first <= cap <= a year (in seconds), factor >= 1 and attempts >= 1"
            )

    def ceiling_seconds(self, attempt: int) -> float:
        """Longest possible wait after attempt number ``attempt`` (1 is the first)."""
        try:
            return min(self.cap, self.first * self.factor ** (attempt - 1))
        except OverflowError:
            return self.cap

    def delay_seconds(self, attempt: int, *, draw: float) -> float:
        """Wait after attempt number ``attempt``; ``draw`` is uniform in [0, 1)."""
        return self.ceiling_seconds(attempt) * draw

    def is_exhausted(self, attempt: int) -> bool:
        """Whether attempt number ``attempt`` was the last one."""
        return attempt >= self.attempts


DEFAULT_BACKOFF = Backoff()
"""Eight attempts over at most about 43 minutes: long enough for a deployment or a failover on the other side."""
