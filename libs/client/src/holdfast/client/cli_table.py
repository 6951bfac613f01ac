"""Lists: aligned columns with headers for people, a JSON line an item for programs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from rich.cells import cell_len
from rich.text import Text

from holdfast.client.cli_output import Output, out, print_json, say, terminal_width
from holdfast.client.render import one_line

__all__ = ["Column", "show_list"]

Item = TypeVar("Item")

PAGE = 200
"""Rows that are measured together: a long list begins to show before its end has arrived."""

GAP = "  "
LEAST = 8
"""Characters to which a column is cut at most."""


@dataclass(frozen=True, slots=True)
class Column(Generic[Item]):
    """One column: its header and what it shows of an item.

    Args:
        of: text, a number, ``None`` (shown as ``-``) or a styled ``Text``. It may be a server's: line breaks become spaces.
        is_right: aligned to the right, as numbers are.
        is_whole: never cut, as ids are, which people copy.
        style: of the whole column.
    """

    title: str
    of: Callable[[Item], object]
    is_right: bool = False
    is_whole: bool = False
    style: str = ""


def show_list(
    items: Iterable[Item],
    columns: Sequence[Column[Item]],
    output: Output,
    *,
    raw: Callable[[Item], Any] = lambda item: getattr(item, "raw", item),
    empty: str = "nothing",
) -> int:
    """Print items and return how many they were.

    At a terminal rows are cut to its width, with "…"; in a pipe nothing is. Without items there is no header, and ``empty``
    goes to stderr.

    Args:
        raw: what ``-o json`` prints of an item; its ``raw``, or itself.
    """
    if output is Output.json:
        return sum(1 for _ in map(print_json, map(raw, items)))
    widths = [cell_len(column.title) for column in columns]
    count, rest = 0, iter(items)
    while page := list(islice(rest, PAGE)):
        rows = [[_cell(column, item) for column in columns] for item in page]
        widths = [max(width, *(row[at].cell_len for row in rows)) for at, width in enumerate(widths)]
        fitted = _fitted(widths, columns)
        if not count:
            out.print(_line([Text(column.title, "bold") for column in columns], fitted, columns))
        for row in rows:
            out.print(_line(row, fitted, columns))
        count += len(page)
    if not count:
        say(empty, "dim")
    return count


def _cell(column: Column[Item], item: Item) -> Text:
    value = column.of(item)
    if isinstance(value, Text):
        return value
    return Text("-" if value is None else one_line(str(value)), column.style)


def _fitted(widths: Sequence[int], columns: Sequence[Column[Any]]) -> list[int]:
    """Widths that fit into the terminal: the widest column that may be cut gives way first."""
    fitted, total = list(widths), terminal_width()
    if total is None:
        return fitted
    over = sum(fitted) + len(GAP) * (len(fitted) - 1) - total
    can_give = [at for at, column in enumerate(columns) if not column.is_whole]
    while over > 0 and (giving := [at for at in can_give if fitted[at] > LEAST]):
        widest = max(giving, key=lambda at: fitted[at])
        others = [fitted[at] for at in giving if fitted[at] < fitted[widest]]
        step = min(over, fitted[widest] - max([LEAST, *others]), over) or 1
        fitted[widest] -= step
        over -= step
    return fitted


def _line(cells: Sequence[Text], widths: Sequence[int], columns: Sequence[Column[Any]]) -> Text:
    parts = []
    for cell, width, column in zip(cells, widths, columns, strict=True):
        part = cell.copy()
        part.truncate(width, overflow="ellipsis")
        padding = " " * (width - part.cell_len)
        parts.append(Text.assemble(padding, part) if column.is_right else Text.assemble(part, padding))
    line = Text(GAP).join(parts)
    line.rstrip()
    return line
