"""Cron expressions of five fields, in a time zone. Read by cronsim, which does as Debian's cron when clocks are changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from holdfast.domain.errors import InvalidSchedule
from holdfast.domain.schedule import ScheduleSpec

__all__ = ["CRON_RULE", "Cron", "next_tick", "read_cron"]

MAX_CHARACTERS = 200
"""Of an expression: a minute field that names every minute has 169."""

CRON_RULE = (
    "five fields: minute, hour, day of month, month, day of week;"
    " such as '0 7 * * mon-fri' for seven o'clock on weekdays"
)

ZONE_RULE = "a name of the IANA time zone database, such as Europe/Berlin or UTC"


@dataclass(frozen=True, slots=True)
class Cron:
    """When a schedule ticks.

    An expression whose minute or hour begins with ``*`` counts minutes as they pass: it ticks in both hours of one that
    the clock shows twice, and not in an hour that the clock leaves out. Any other one means times of day: one in an hour
    that is left out comes right after it, and one in an hour that is shown twice comes in the first.
    """

    expression: str
    zone: ZoneInfo

    def ticks_after(self, moment: datetime) -> Iterator[datetime]:
        """Ticks later than ``moment``, which has an offset, in UTC; they end where none is due within 50 years."""
        last = moment
        for local in CronSim(self.expression, moment.astimezone(self.zone)):
            tick = local.astimezone(UTC)
            # Begun in the second of two equal hours, cronsim names the ticks of the first, which are over.
            if tick > last:
                last = tick
                yield tick

    def words(self) -> str:
        """The expression in English, such as ``At 07:00 on weekdays``."""
        return CronSim(self.expression, datetime.now(UTC)).explain()


def read_cron(expression: str, timezone: str) -> Cron:
    """The two as one value, checked.

    Raises:
        InvalidSchedule: one of them is wrong, or no tick comes within 50 years; ``field`` names it.
    """
    zone = _zone(timezone)
    if len(expression) > MAX_CHARACTERS:
        raise InvalidSchedule("cron", f"has more than {MAX_CHARACTERS} characters; a schedule takes {CRON_RULE}")
    if len(expression.split()) != 5:
        raise InvalidSchedule("cron", f"has {len(expression.split())} fields; a schedule takes {CRON_RULE}")
    cron = Cron(" ".join(expression.split()), zone)
    try:
        first = next(cron.ticks_after(datetime.now(UTC)), None)
    except CronSimError as exc:
        raise InvalidSchedule("cron", f"has a {str(exc).lower()}; a schedule takes {CRON_RULE}") from None
    if first is None:
        raise InvalidSchedule("cron", "names a day that does not come within 50 years; look at its day and month")
    return cron


def next_tick(spec: ScheduleSpec, moment: datetime) -> datetime | None:
    """The first tick of a schedule after a moment; ``None`` where none comes within 50 years.

    Raises:
        InvalidSchedule: as :func:`read_cron`.
    """
    return next(read_cron(spec.cron, spec.timezone).ticks_after(moment), None)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a path and a folder of the database are errors of their own
        raise InvalidSchedule("timezone", f"is unknown; it is {ZONE_RULE}") from None
