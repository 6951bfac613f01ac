"""Times in fixed buckets: counted one by one, added up over any span, and quantiles read from the sums.

Fixed buckets, since those of two minutes can be added; quantiles of two minutes cannot.
"""

from collections.abc import Sequence

__all__ = ["BOUNDS_MS", "BUCKETS", "quantile_ms"]

BOUNDS_MS = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 3_600_000)
"""Where a bucket ends and the next begins, in milliseconds: a time of exactly a bound is in the upper one."""

BUCKETS = len(BOUNDS_MS) + 1
"""The last one has everything from an hour on."""


def quantile_ms(counts: Sequence[int], quantile: float) -> float | None:
    """The time that ``quantile`` (0 to 1) of the counted times did not exceed; ``None`` where nothing was counted.

    Within a bucket times are taken to be spread evenly, so the answer is off by a bucket's width at most. In the last
    bucket, which has no end, it is that bucket's beginning: "an hour or more".

    Args:
        counts: how many times fell into each of the ``BUCKETS``.
    """
    rank, below = quantile * sum(counts), 0
    if not sum(counts):
        return None
    for bucket, count in enumerate(counts[:-1]):
        if count and below + count >= rank:
            low = BOUNDS_MS[bucket - 1] if bucket else 0
            return low + (BOUNDS_MS[bucket] - low) * (rank - below) / count
        below += count
    return float(BOUNDS_MS[-1])
