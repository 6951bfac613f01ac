"""Charts: what is drawn, and that its numbers are there for those who do not see it."""

import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest

from holdfast.ingest.console.charts import HEIGHT, WIDTH, Series, bars, lines, nice_top

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def minutes(*counts: float) -> list[tuple[datetime, float]]:
    return [(NOON + timedelta(minutes=place), count) for place, count in enumerate(counts)]


def drawn(svg: str, tag: str) -> list[ET.Element]:
    return [each for each in ET.fromstring(svg).iter() if each.tag == tag]  # noqa: S314 (our own)


def test_a_bar_for_each_minute_that_has_something_in_proportion() -> None:
    chart = bars("Accepted", Series("accepted", minutes(0, 50, 100)), unit="events")

    half, whole = drawn(chart.svg, "rect")
    assert float(whole.attrib["height"]) == pytest.approx(2 * float(half.attrib["height"]), abs=0.2)
    assert float(half.attrib["x"]) + float(half.attrib["width"]) < float(whole.attrib["x"])
    for each in (half, whole):
        assert 0 <= float(each.attrib["x"]) <= WIDTH - float(each.attrib["width"])
        assert 0 <= float(each.attrib["y"]) <= HEIGHT


def test_a_line_has_a_place_for_each_moment_and_series_share_a_scale() -> None:
    chart = lines("Outcome", [Series("ok", minutes(0, 10)), Series("failed", minutes(5, 5), "bad")], unit="events")

    ok, failed = drawn(chart.svg, "polyline")
    heights = [[float(place.split(",")[1]) for place in each.attrib["points"].split()] for each in (ok, failed)]
    assert heights[0][0] > heights[1][0] > heights[0][1]
    assert heights[1][0] == heights[1][1]
    assert "tone-bad" in failed.attrib["class"]


def test_the_numbers_are_in_the_label_and_in_the_table() -> None:
    chart = lines("Outcome", [Series("ok", minutes(1, 2000)), Series("failed", minutes(0, 0.5))], unit="events")

    label = ET.fromstring(chart.svg).attrib["aria-label"]  # noqa: S314
    assert "ok: 2\u202f001 events, at most 2\u202f000, last 2\u202f000" in label
    assert chart.names == ("ok", "failed")
    assert chart.rows == (("12:00", ("1", "0")), ("12:01", ("2\u202f000", "0.5")))


def test_without_numbers_there_is_an_empty_chart() -> None:
    for points in ([], minutes(0, 0, 0)):
        chart = bars("Accepted", Series("accepted", points), unit="events")
        assert drawn(chart.svg, "rect") == []
    assert "nothing yet" in bars("Accepted", Series("accepted", []), unit="events").summary


def test_times_stand_under_the_chart_and_not_on_each_other() -> None:
    chart = bars("Accepted", Series("accepted", minutes(*range(60))), unit="events")

    times = [each.text for each in drawn(chart.svg, "text") if re.fullmatch(r"\d\d:\d\d", each.text or "")]
    assert len(times) == 4


def test_a_name_with_markup_is_text() -> None:
    chart = bars('<script>"', Series('<img src="x">', minutes(1)), unit="<b>")

    assert "<script>" not in chart.svg
    assert "<img" not in chart.svg
    assert 'style="' not in chart.svg


@pytest.mark.parametrize(("most", "top"), [(0, 1), (1, 1), (2, 2), (3, 5), (7, 10), (10, 10), (11, 20), (950, 1000)])
def test_the_scale_ends_at_a_round_number(most: float, top: float) -> None:
    assert nice_top(most) == top
