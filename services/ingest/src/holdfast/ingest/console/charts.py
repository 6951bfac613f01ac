"""Charts as SVG, drawn here: no script, no inline style, and a table of the same numbers for those who do not see them.

Pure. A chart takes ``[(moment, count), …]`` in equal steps, oldest first: an hour in minutes, a day in hours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup

__all__ = ["Chart", "Series", "bars", "lines", "nice_top"]

WIDTH, HEIGHT = 600, 160
"""Of the view box; the style sheet says how large a chart is on the page."""

LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 22
"""Margins: for the numbers of the scale, the last bar, the top line and the times."""

GAP = 0.25
"""Of a bar's step that stays empty."""

TIMES = 4
"""Times under a chart."""

Points = Sequence[tuple[datetime, float]]


@dataclass(frozen=True, slots=True)
class Series:
    """Numbers with a name. ``tone`` is a class of the style sheet: ``good``, ``warn``, ``bad``, ``accent``, ``quiet``."""

    name: str
    points: Points
    tone: str = "accent"


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, and its numbers: ``rows`` are ``(time, a text for each series)``; ``legend`` is ``(name, tone)`` of each."""

    title: str
    summary: str
    svg: Markup
    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    legend: tuple[tuple[str, str], ...]


def bars(title: str, series: Series, *, unit: str, clock: str = "%H:%M") -> Chart:
    """A bar for each step; a step without anything has none."""
    points = series.points
    top = nice_top(max((value for _, value in points), default=0))
    step = (WIDTH - LEFT - RIGHT) / max(len(points), 1)
    shapes = [
        Markup('<rect class="chart-bar tone-{}" x="{}" y="{}" width="{}" height="{}" rx="1"/>').format(
            series.tone, _n(LEFT + place * step + step * GAP / 2), _n(_y(value, top)), _n(step * (1 - GAP)),
            _n(HEIGHT - BOTTOM - _y(value, top)),
        )
        for place, (_, value) in enumerate(points) if value > 0
    ]  # fmt: skip
    return _chart(title, [series], Markup("").join(shapes), top, unit, clock)


def lines(title: str, series: Sequence[Series], *, unit: str, clock: str = "%H:%M") -> Chart:
    """A line for each series, on one scale."""
    top = nice_top(max((value for each in series for _, value in each.points), default=0))
    shapes = []
    for each in series:
        step = (WIDTH - LEFT - RIGHT) / max(len(each.points), 1)
        places = " ".join(
            f"{_n(LEFT + (place + 0.5) * step)},{_n(_y(value, top))}" for place, (_, value) in enumerate(each.points)
        )
        shapes.append(Markup('<polyline class="chart-line tone-{}" points="{}"/>').format(each.tone, places))
    return _chart(title, series, Markup("").join(shapes), top, unit, clock)


def nice_top(most: float) -> float:
    """The end of the scale: 1, 2 or 5 times a power of ten, and not below ``most``. At least 1."""
    if most <= 1:
        return 1.0
    power = 1.0
    while power * 10 < most:
        power *= 10
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= most)


def _chart(title: str, series: Sequence[Series], shapes: Markup, top: float, unit: str, clock: str) -> Chart:
    moments = [moment for moment, _ in series[0].points] if series else []
    summary = "; ".join(_summary(each, unit) for each in series)
    svg = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}</svg>').format(
        WIDTH, HEIGHT, f"{title}. {summary}", _scale(top), shapes, _times(moments, clock)
    )
    rows = tuple(
        (moment.astimezone(UTC).strftime(clock), tuple(_value(each.points[place][1]) for each in series))
        for place, moment in enumerate(moments)
    )
    legend = tuple((each.name, each.tone) for each in series)
    return Chart(title, summary, svg, tuple(each.name for each in series), rows, legend)


def _summary(series: Series, unit: str) -> str:
    values = [value for _, value in series.points]
    if not values:
        return f"{series.name}: nothing yet"
    return f"{series.name}: {_value(sum(values))} {unit}, at most {_value(max(values))}, last {_value(values[-1])}"


def _scale(top: float) -> Markup:
    marks = [
        Markup(
            '<line class="chart-grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="chart-text" x="{}" y="{}" '
            'text-anchor="end">{}</text>'
        ).format(LEFT, WIDTH - RIGHT, _n(_y(value, top)), _n(_y(value, top)), LEFT - 6, _n(_y(value, top) + 4),
                 _value(value))
        for value in (0.0, top / 2, top)
    ]  # fmt: skip
    return Markup("").join(marks)


def _times(moments: Sequence[datetime], clock: str) -> Markup:
    step = (WIDTH - LEFT - RIGHT) / max(len(moments), 1)
    each = max(1, len(moments) // TIMES)
    marks = [
        Markup('<text class="chart-text" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            _n(LEFT + (place + 0.5) * step), HEIGHT - 6, moments[place].astimezone(UTC).strftime(clock)
        )
        for place in range(each // 2, len(moments), each)
    ]
    return Markup("").join(marks)


def _y(value: float, top: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top)


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _value(number: float) -> str:
    return f"{number:,.0f}".replace(",", "\u202f") if number == int(number) else f"{number:.1f}"
