"""Cron expressions in time zones: what they mean when clocks are put forward and back, and what is refused."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.errors import InvalidSchedule
from holdfast.domain.schedule import Missed, turn_of
from holdfast.runtime.cron import read_cron


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def ticks(cron: str, zone: str, after: str, count: int) -> list[str]:
    found = islice(read_cron(cron, zone).ticks_after(at(after)), count)
    return [f"{tick:%m-%d %H:%M}" for tick in found]


@pytest.mark.parametrize(
    ("zone", "cron", "after", "expected"),
    [
        # 2026-03-29 02:00 CET becomes 03:00 CEST; 2026-10-25 03:00 CEST becomes 02:00 CET.
        ("Europe/Berlin", "30 2 * * *", "2026-03-28 00:00", ["03-28 01:30", "03-29 01:00", "03-30 00:30"]),
        ("Europe/Berlin", "30 2 * * *", "2026-10-24 12:00", ["10-25 00:30", "10-26 01:30"]),
        # 2026-03-08 02:00 EST becomes 03:00 EDT; 2026-11-01 02:00 EDT becomes 01:00 EST.
        ("America/New_York", "30 2 * * *", "2026-03-07 00:00", ["03-07 07:30", "03-08 07:00", "03-09 06:30"]),
        ("America/New_York", "30 1 * * *", "2026-10-31 12:00", ["11-01 05:30", "11-02 06:30"]),
    ],
)
def test_a_time_of_day_comes_once_a_day_whatever_the_clocks_do(
    zone: str, cron: str, after: str, expected: list[str]
) -> None:
    assert ticks(cron, zone, after, len(expected)) == expected


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 7 * * mon-fri", ["11-30 07:00", "12-01 07:00"]),
        ("*/15 * * * *", ["11-28 00:15", "11-28 00:30"]),
        ("30 2 1 * *", ["12-01 02:30", "01-01 02:30"]),
        ("0 9 * * mon#1", ["12-07 09:00", "01-04 09:00"]),
        ("0 18 L * *", ["11-30 18:00", "12-31 18:00"]),
        ("0 0 * jan 7", ["01-03 00:00", "01-10 00:00"]),
    ],
)
def test_the_fields_mean_what_the_guide_says(cron: str, expected: list[str]) -> None:
    assert ticks(cron, "UTC", "2026-11-28 00:00", 2) == expected


def test_several_times_in_the_hour_that_is_left_out_are_one_tick() -> None:
    assert ticks("0,20,40 2,3 * * *", "Europe/Berlin", "2026-03-29 00:00", 4) == [
        "03-29 01:00", "03-29 01:20", "03-29 01:40", "03-30 00:00",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "after", "expected"),
    [
        ("Europe/Berlin", "2026-03-29 00:10", ["03-29 00:30", "03-29 01:00", "03-29 01:30"]),
        ("Europe/Berlin", "2026-10-25 00:10", ["10-25 00:30", "10-25 01:00", "10-25 01:30", "10-25 02:00"]),
        ("America/New_York", "2026-11-01 05:10", ["11-01 05:30", "11-01 06:00", "11-01 06:30", "11-01 07:00"]),
    ],
)
def test_every_half_hour_is_every_half_hour_that_passes(zone: str, after: str, expected: list[str]) -> None:
    assert ticks("*/30 * * * *", zone, after, len(expected)) == expected


def test_minutes_of_one_hour_pass_twice_where_the_hour_does_and_not_at_all_where_it_is_left_out() -> None:
    assert ticks("*/30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", 5) == [
        "10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30", "10-26 01:00",
    ]  # fmt: skip
    assert ticks("*/30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", 1) == ["03-30 00:00"]


def test_a_look_from_the_second_of_two_equal_hours_does_not_find_the_ticks_of_the_first() -> None:
    assert ticks("15,45 2 * * *", "Europe/Berlin", "2026-10-25 01:20", 2) == ["10-26 01:15", "10-26 01:45"]


@given(
    st.sampled_from(["30 2 * * *", "0 * * * *", "*/7 1-3 * * *", "15,45 1,2,3 * * sun", "0 0 1 * *", "5 2 * * mon#1"]),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]),
    st.integers(0, 2 * 365 * 24 * 60).map(lambda minutes: at("2026-01-01 00:00") + timedelta(minutes=minutes)),
)
def test_ticks_are_in_order_and_do_not_depend_on_where_one_begins(expression: str, zone: str, moment: datetime) -> None:
    cron = read_cron(expression, zone)
    found = [moment, *islice(cron.ticks_after(moment), 12)]

    assert all(one < other for one, other in pairwise(found))
    for place, tick in enumerate(found[1:-1], 1):
        assert next(cron.ticks_after(tick)) == found[place + 1]
        assert next(cron.ticks_after(tick - timedelta(microseconds=1))) == tick


@given(
    st.sampled_from(["30 2 * * *", "*/20 * * * *", "*/15 1-3 * * *", "15,45 1,2,3 * * *"]),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    st.sampled_from(
        ["2026-03-28 20:00", "2026-03-07 20:00", "2026-10-24 20:00", "2026-10-31 20:00", "2026-04-04 10:00"]
    ),
    st.lists(st.integers(1, 9000), min_size=1, max_size=12),
)
def test_whenever_one_looks_each_tick_is_decided_once(
    expression: str, zone: str, begin: str, seconds_between: list[int]
) -> None:
    cron, now = read_cron(expression, zone), at(begin)
    planned, decided = next(cron.ticks_after(now)), list[datetime]()
    for seconds in seconds_between:
        now += timedelta(seconds=seconds)
        turn = turn_of(cron.ticks_after, planned=planned, now=now, missed=Missed.ALL)
        assert turn.next_at is not None
        decided += turn.due
        planned = turn.next_at

    assert decided == list(takewhile(lambda tick: tick <= now, cron.ticks_after(at(begin))))
    assert planned == next(cron.ticks_after(now))


@pytest.mark.parametrize(
    ("cron", "zone", "field", "told"),
    [
        ("0 7 * * mon-frii", "UTC", "cron", "bad day-of-week"),
        ("60 * * * *", "UTC", "cron", "bad minute"),
        ("* * * *", "UTC", "cron", "has 4 fields"),
        ("0 0 7 * * *", "UTC", "cron", "has 6 fields"),
        ("@daily", "UTC", "cron", "has 1 fields"),
        ("", "UTC", "cron", "has 0 fields"),
        ("0 0 31 2 *", "UTC", "cron", "bad day-of-month"),
        ("0 0 */20 * mon#2", "UTC", "cron", "names a day that does not come"),
        ("1," * 100 + "1 * * * *", "UTC", "cron", "more than 200 characters"),
        ("0 7 * * *", "Europe/Berlim", "timezone", "is unknown"),
        ("0 7 * * *", "", "timezone", "is unknown"),
        ("0 7 * * *", "../../etc/passwd", "timezone", "is unknown"),
        ("0 7 * * *", "Europe", "timezone", "is unknown"),
        ("0 7 * * *", "Europe/\x00", "timezone", "is unknown"),
        ("0 7 * * *", "Europe/\ud800", "timezone", "is unknown"),
        ("0 7 * * *", "x" * 5000, "timezone", "is unknown"),
    ],
)
def test_what_is_no_schedule_is_refused_with_what_one_takes(cron: str, zone: str, field: str, told: str) -> None:
    with pytest.raises(InvalidSchedule, match=told) as refused:
        read_cron(cron, zone)

    assert refused.value.field == field


@given(st.lists(st.text("0123456789*,-/#LWMONabc²", max_size=8), min_size=5, max_size=5))
def test_any_text_is_a_schedule_or_is_refused(fields: list[str]) -> None:
    try:
        cron = read_cron(" ".join(fields), "Europe/Berlin")
    except InvalidSchedule:
        return
    assert next(cron.ticks_after(at("2026-03-29 00:00"))) > at("2026-03-29 00:00")
    assert cron.words()


def test_an_expression_is_told_in_words() -> None:
    assert read_cron(" 0  7 * * MON-fri ", "UTC").words() == "At 07:00 on Monday through Friday"
    assert read_cron("0 7 * * *", "Europe/Istanbul").zone == ZoneInfo("Europe/Istanbul")
