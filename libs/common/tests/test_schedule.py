"""Which ticks of a schedule have an event: what was missed, how much of it is made up for, and who a tick's event is."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from holdfast.domain.schedule import (
    MAX_CAUGHT_UP,
    MOST_AT_ONCE,
    Missed,
    Overlap,
    ScheduleSpec,
    Turn,
    event_of,
    faults_of,
    turn_of,
    without_overlap,
)

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SPEC = ScheduleSpec(name="daily-report", cron="0 7 * * *", type="report.due")


def every(step: timedelta) -> Any:
    """Ticks at whole multiples of a step since 1970."""

    def ticks_after(moment: datetime) -> Iterator[datetime]:
        begin = datetime(1970, 1, 1, tzinfo=UTC)
        count = (moment - begin) // step + 1
        while True:
            yield begin + count * step
            count += 1

    return ticks_after


def turn(missed: Missed, *, late: timedelta, step: timedelta = MINUTE) -> Turn:
    """A look at noon at a schedule whose first tick that is not decided is that long ago."""
    return turn_of(every(step), planned=NOON - late, now=NOON, missed=missed)


@pytest.mark.parametrize("missed", Missed)
def test_a_tick_that_has_just_come_is_due_once(missed: Missed) -> None:
    assert turn(missed, late=timedelta()) == Turn((NOON,), 0, NOON + MINUTE)


@pytest.mark.parametrize("missed", Missed)
def test_before_its_time_nothing_is_due(missed: Missed) -> None:
    assert turn(missed, late=-MINUTE) == Turn((), 0, NOON + MINUTE)


def test_of_missed_ticks_the_latest_alone_is_due() -> None:
    assert turn(Missed.LATEST, late=5 * MINUTE) == Turn((NOON,), 5, NOON + MINUTE)


def test_all_missed_ticks_are_due_oldest_first() -> None:
    due = tuple(NOON - count * MINUTE for count in (3, 2, 1, 0))

    assert turn(Missed.ALL, late=3 * MINUTE) == Turn(due, 0, NOON + MINUTE)


@pytest.mark.parametrize(("late_seconds", "is_due"), [(59, True), (60, True), (61, False), (3600, False)])
def test_a_tick_that_is_skipped_when_it_is_late_is_due_for_a_minute(late_seconds: int, is_due: bool) -> None:
    planned = NOON - timedelta(seconds=late_seconds)
    hourly = lambda moment: iter([each for each in (planned, planned + timedelta(hours=1)) if each > moment])  # noqa: E731
    now = min(NOON, planned + timedelta(minutes=59))

    decided = turn_of(hourly, planned=planned, now=now, missed=Missed.SKIP)

    assert decided == Turn((planned,) if is_due else (), 0 if is_due else 1, planned + timedelta(hours=1))


def test_a_turn_takes_on_so_many_ticks_and_leaves_the_others_to_the_next_one() -> None:
    first = turn(Missed.ALL, late=250 * MINUTE)
    assert (len(first.due), first.due[0], first.passed) == (MOST_AT_ONCE, NOON - 250 * MINUTE, 0)
    assert first.next_at == first.due[-1] + MINUTE

    done = [*first.due]
    while len(done) < 251:
        following = turn_of(every(MINUTE), planned=done[-1] + MINUTE, now=NOON, missed=Missed.ALL)
        assert following.due
        done += following.due

    assert done == [NOON - count * MINUTE for count in range(250, -1, -1)]


@pytest.mark.parametrize("step", [MINUTE, timedelta(hours=1), timedelta(hours=7)])
@pytest.mark.parametrize("missed", Missed)
def test_after_a_standstill_of_years_the_latest_thousand_are_made_up_for(missed: Missed, step: timedelta) -> None:
    decided = turn(missed, late=timedelta(days=3000), step=step)
    last = next(every(step)(NOON - step))

    assert len(decided.due) + decided.passed in (MAX_CAUGHT_UP, MOST_AT_ONCE)
    if missed is Missed.ALL:
        assert decided.due[0] == last - (MAX_CAUGHT_UP - 1) * step
    elif missed is Missed.LATEST:
        assert (decided.due, decided.next_at) == ((last,), last + step)


def test_a_schedule_that_rarely_ticks_is_found_however_long_ago_its_tick_was() -> None:
    yearly = timedelta(days=365)
    planned = next(every(yearly)(NOON - 3 * yearly))

    assert turn_of(every(yearly), planned=planned, now=NOON, missed=Missed.ALL).due[0] == planned


def test_a_schedule_that_ends_has_no_next_tick() -> None:
    only = lambda moment: iter([NOON] if moment < NOON else [])  # noqa: E731

    assert turn_of(only, planned=NOON, now=NOON, missed=Missed.ALL) == Turn((NOON,), 0, None)


@pytest.mark.parametrize(
    ("overlap", "is_open", "count"),
    [(Overlap.ALLOW, True, 3), (Overlap.ALLOW, False, 3), (Overlap.SKIP, True, 0), (Overlap.SKIP, False, 1)],
)
def test_where_events_may_not_overlap_one_tick_has_an_event_and_none_while_one_is_open(
    overlap: Overlap, is_open: bool, count: int
) -> None:
    due = (NOON, NOON + MINUTE, NOON + 2 * MINUTE)

    assert without_overlap(due, overlap, is_open=is_open) == due[:count]
    assert without_overlap((), overlap, is_open=is_open) == ()


def test_the_event_of_a_tick_has_the_tick_for_identity() -> None:
    seven = datetime(2026, 11, 30, 7, tzinfo=timezone(timedelta(hours=3)))
    event = event_of(replace(SPEC, data=b'{"a": 1}', audience="u"), seven, tenant="acme", event_id=UUID(int=1))

    assert (event.tenant, event.type, event.audience) == ("acme", "report.due", "u")
    assert event.source == "/holdfast/schedules/daily-report"
    assert event.ce_id == "2026-11-30T04:00:00Z"
    assert (event.time, event.data_json, event.datacontenttype) == (seven, '{"a": 1}', "application/json")


def test_two_schedules_with_one_source_have_different_events() -> None:
    ids = {
        event_of(replace(SPEC, name=name, source="/shop"), NOON, tenant="acme", event_id=UUID(int=1)).ce_id
        for name in ("one", "other")
    }

    assert ids == {"one@2026-11-29T12:00:00Z", "other@2026-11-29T12:00:00Z"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""), ("name", "a b"), ("name", "x" * 101), ("name", "ä"), ("name", "-a"), ("name", "a/b"), ("name", "a\n"),
        ("type", ""), ("type", "a\x00"), ("type", "ä" * 513), ("type", "\ud800"), ("source", ""), ("source", "x" * 1025),
        ("subject", ""), ("subject", "a\nb"), ("audience", "x" * 256), ("audience", ""), ("audience", "u*"),
    ],
)  # fmt: skip
def test_what_no_event_may_have_is_a_fault_of_the_schedule(field: str, value: str) -> None:
    faulty: dict[str, Any] = {field: value}

    assert [name for name, _ in faults_of(replace(SPEC, **faulty))] == [field]


def test_the_longest_texts_are_no_faults() -> None:
    spec = replace(SPEC, name="x" * 100, type="x" * 1024, source="ä" * 512, subject="s" * 1024, audience="a" * 255)

    assert faults_of(spec) == []
