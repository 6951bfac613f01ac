"""One log line for what goes on for minutes."""

from structlog.testing import capture_logs

from holdfast.maintenance.summary import Summary
from holdfast.runtime.telemetry import Log


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_backlog_of_ten_minutes_has_a_line_a_minute_and_loses_no_count() -> None:
    clock = Clock()
    with capture_logs() as lines:
        summary = Summary(Log.REDISPATCHED, clock)
        for second in range(600):
            clock.seconds = second
            summary.add(3)
        summary.add(0)
        summary.add(0)

    counts = [line["count"] for line in lines if line["event"] == Log.REDISPATCHED]
    assert len(counts) == 11
    assert counts[0] == 3
    assert sum(counts) == 1800
