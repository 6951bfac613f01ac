"""How statistics look on a terminal of 80 columns or more."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from holdfast.client.render import one_line
from holdfast.client.statistics import Handlers, HandlerStatistics, Statistics

__all__ = ["handlers_table", "page", "span", "sparkline"]

BARS = "▁▂▃▄▅▆▇█"

LATE_SECONDS = 15.0
"""Of counters, which are about five seconds behind."""


def page(statistics: Statistics, handlers: Handlers, *, limit: int | None = None) -> RenderableType:
    """Everything at a glance: how it stands, the last hour, and ``limit`` handlers."""
    parts: list[RenderableType] = [_rates(statistics), _standing(statistics)]
    if statistics.lag_seconds > LATE_SECONDS:
        late = f"counted up to {span(1000 * statistics.lag_seconds)} ago; is maintenance running?"
        parts.append(Text(late, "yellow"))
    parts += [_line("accepted", statistics, "cyan"), _line("processed", statistics, "green")]
    parts += [_line("failed", statistics, "red"), Text(""), handlers_table(handlers, limit=limit)]
    return Group(*parts)


def handlers_table(handlers: Handlers, *, limit: int | None = None) -> RenderableType:
    """A row for each handler, and a line for each type that nobody serves."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    table.add_column("HANDLER", no_wrap=True, overflow="ellipsis", ratio=1, max_width=28)
    for name in ("RATE/S", "FAILED", "DEAD", "P50", "P95", "WAIT P95"):
        table.add_column(name, justify="right", no_wrap=True)
    for item in handlers.items[:limit]:
        table.add_row(*_row(item))
    if not handlers.items:
        return Group(Text("no handler has run in this time", "dim"), *_standing_out(handlers), *_unserved(handlers))
    return Group(table, *_standing_out(handlers), *_unserved(handlers))


def sparkline(values: Sequence[float]) -> str:
    """A bar for each value, the highest of them full; nothing at all is a low line."""
    highest = max(values, default=0)
    return "".join(
        BARS[0] if value <= 0 else BARS[max(1, round((len(BARS) - 1) * value / highest))] for value in values
    )


def span(milliseconds: float | None) -> str:
    """``0.8ms``, ``35ms``, ``2.4s``, ``7m``, ``3.0h``; a dash where nothing was measured."""
    if milliseconds is None:
        return "-"
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds >= size:
            return f"{milliseconds / size:.3g}{unit}"
    return f"{milliseconds:.2g}ms" if milliseconds < 10 else f"{milliseconds:.0f}ms"


def _rates(statistics: Statistics) -> Text:
    rates = statistics.per_second
    line = Text.assemble((f"{rates['accepted']:.1f}/s", "bold cyan"), " accepted   ")
    line.append_text(Text.assemble((f"{rates['processed']:.1f}/s", "bold green"), " processed   "))
    failing = "bold red" if rates["failed"] else "dim"
    line.append_text(Text.assemble((f"{rates['failed']:.1f}/s", failing), " failed"))
    line.append(f"   {datetime.now(UTC):%H:%M:%S}Z", "dim")
    return line


def _standing(statistics: Statistics) -> Text:
    line = Text("   ".join(f"{count} {state}" for state, count in statistics.events.items()))
    at_most = "at most " if statistics.is_at_most else ""
    if statistics.oldest_due_seconds:
        line.append(f"   oldest due {at_most}{span(1000 * statistics.oldest_due_seconds)}", "yellow")
    return line


def _line(name: str, statistics: Statistics, style: str) -> Text:
    values = [getattr(point, name) for point in statistics.series][-60:]
    return Text.assemble((f"{name:<10}", "dim"), (sparkline(values), style), f" {sum(values)}")


def _row(item: HandlerStatistics) -> tuple[Text, ...]:
    name = item.name if item.kind == "handler" else f"{item.name} (no handler)" if item.name else "all others"
    failed = item.failed + item.dead + item.lost
    return (
        Text(one_line(str(name))), Text(f"{item.per_second:.2f}"), Text(str(failed), "red" if failed else "dim"),
        Text(str(item.dead), "bold red" if item.dead else "dim"), Text(span(item.run.p50_ms)), Text(span(item.run.p95_ms)),
        Text(span(item.wait.p95_ms)),
    )  # fmt: skip


def _standing_out(handlers: Handlers) -> list[Text]:
    """A line for each handler that is paused, or in whose lines events wait."""
    lines: list[Text] = []
    for each in handlers.declared:
        name = one_line(each.name)
        if each.is_paused:
            lines.append(Text(f"{name} is paused", "yellow"))
        if each.waiting:
            running = "" if each.running is None else f"{each.running} running, "
            lines.append(
                Text(f"{name}: {running}{each.waiting}{'+' if each.is_at_least else ''} waiting for its limit")
            )
    return lines


def _unserved(handlers: Handlers) -> list[Text]:
    return [
        Text(
            f"nobody serves {one_line(each.type)}: {'at least ' if each.is_at_least else ''}{each.events} waiting,"
            f" the oldest for {span(1000 * each.oldest_seconds)}", "yellow",
        )
        for each in handlers.unserved
        if not each.is_served
    ]  # fmt: skip
