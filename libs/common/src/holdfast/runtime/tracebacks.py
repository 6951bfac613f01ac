"""Errors as text of a bounded length, whatever a stranger's exception does.

An exception's class is anybody's code: its message may be megabytes, its ``__str__`` may raise, its chain of causes may
have thousands of links. Nothing here recurses, and frames are kept before text: they say where to look. A ``__str__`` that
never returns is the caller's matter: the processor describes a handler's error while the handler's clock runs.
"""

import linecache
from collections import deque
from collections.abc import Iterator
from itertools import islice
from types import FrameType, TracebackType
from typing import Any

from holdfast.domain.errors import HoldfastError

__all__ = ["MAX_MESSAGE", "MAX_TRACEBACK", "MAX_TYPE", "clean", "error_text", "error_type", "format_error", "innermost"]

MAX_TYPE = 200
"""Characters of an error's type. PostgreSQL indexes it, and an index entry has at most about 2,700 bytes."""

MAX_MESSAGE = 500
"""Characters of an error's message."""

MAX_TRACEBACK = 20_000
"""Characters of a traceback with everything that led to the error."""

MAX_LINKS = 10_000
"""Errors of a chain that are looked at."""

MAX_ERRORS = 8
"""Errors of a chain that are shown: the nearest half and the deepest half."""

OUTER_FRAMES, INNER_FRAMES = 4, 12
"""Frames of one error that are shown: where it began and where it was raised."""

MAX_NOTES = 5

MAX_PATH = 200

MAX_LINE = 160


def error_type(exc: BaseException) -> str:
    """The name of an exception's class, at most ``MAX_TYPE`` characters."""
    try:
        return clean(type(exc).__qualname__, MAX_TYPE) or "Exception"
    except BaseException:  # noqa: BLE001 (a metaclass is anybody's code)
        return "Exception"


def error_text(exc: BaseException) -> str:
    """What an exception says, at most ``MAX_MESSAGE`` characters."""
    try:
        return clean(str(exc), MAX_MESSAGE)
    except BaseException:  # noqa: BLE001 (an exception's __str__ is anybody's code, and may call sys.exit())
        return "the error has no message: its __str__ failed"


def clean(text: str, length: int) -> str:
    """The first ``length`` characters, in a form that PostgreSQL and UTF-8 take: no NUL, no half surrogate pairs."""
    first = str.__getitem__(text, slice(length))  # a subclass of str may have a __getitem__ of its own
    return first.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def innermost(tb: TracebackType | None, count: int) -> list[FrameType]:
    """The ``count`` frames next to where the error was raised, outermost first."""
    return [frame for frame, _ in deque(_walk(tb), maxlen=count)]


def format_error(exc: BaseException, *, with_texts: bool) -> str:
    """The error, its frames and what led to it, the error itself first; at most ``MAX_TRACEBACK`` characters.

    Without texts the messages of exceptions are left out, because they may quote data. Holdfast's own never do.
    """
    found = list(islice(_related(exc), MAX_LINKS))
    nearest, deepest = found[: MAX_ERRORS // 2], found[MAX_ERRORS // 2 :][-MAX_ERRORS // 2 :]
    blocks = [_block(relation, each, with_texts) for relation, each in (*nearest, *deepest)]
    return _joined(blocks, left_out=len(found) - len(blocks), gap=len(nearest))


def _joined(blocks: list[str], *, left_out: int, gap: int) -> str:
    """The blocks with a note where some are missing. What is too long goes from the middle: the cause stays."""
    while len(blocks) > 1 and sum(map(len, blocks)) + 100 > MAX_TRACEBACK:
        gap = len(blocks) // 2
        del blocks[gap]
        left_out += 1
    if left_out:
        blocks.insert(gap, f"({left_out} more errors are left out here)\n")
    return "\n".join(blocks)[:MAX_TRACEBACK]


def _related(exc: BaseException) -> Iterator[tuple[str, BaseException]]:
    """The error and everything that led to it, nearest first; each error once."""
    seen = {id(exc)}
    waiting = deque([("", exc)])
    while waiting:
        relation, each = waiting.popleft()
        yield relation, each
        for link in _links(each):
            if id(link[1]) not in seen:
                seen.add(id(link[1]))
                waiting.append(link)


def _links(exc: BaseException) -> Iterator[tuple[str, BaseException]]:
    if (cause := _slot(exc, "__cause__")) is not None:
        yield "caused by:", cause
    elif (context := _slot(exc, "__context__")) is not None and not _slot(exc, "__suppress_context__"):
        yield "raised while handling:", context
    if isinstance(exc, BaseExceptionGroup):
        for each in vars(BaseExceptionGroup)["exceptions"].__get__(exc):
            yield "one of the group:", each


def _slot(exc: BaseException, name: str) -> Any:
    """An attribute that every exception has, past the properties of that name that a subclass may have."""
    return vars(BaseException)[name].__get__(exc)


def _block(relation: str, exc: BaseException, with_texts: bool) -> str:
    is_shown = with_texts or isinstance(exc, HoldfastError)
    text = error_text(exc) if is_shown else ""
    frames = _frames(_slot(exc, "__traceback__"))
    lines = [relation] if relation else []
    lines += ["Traceback (most recent call last):", *frames] if frames else []
    lines.append(f"{error_type(exc)}{': ' if text else ''}{text}")
    lines += _notes(exc) if is_shown else []
    return "\n".join(lines) + "\n"


def _notes(exc: BaseException) -> list[str]:
    try:
        notes = exc.__notes__
        return [clean(note, MAX_LINE) for note in notes[:MAX_NOTES] if isinstance(note, str)]
    except BaseException:  # noqa: BLE001 (mostly there are none; and it may be anything)
        return []


def _frames(tb: TracebackType | None) -> list[str]:
    frames = _walk(tb)
    outer = list(islice(frames, OUTER_FRAMES))
    inner: deque[tuple[FrameType, int]] = deque(maxlen=INNER_FRAMES)
    left_out = -INNER_FRAMES
    for frame in frames:
        inner.append(frame)
        left_out += 1
    lines = [_frame(*each) for each in outer]
    if left_out > 0:
        lines.append(f"  ({left_out} frames are left out here)")
    return lines + [_frame(*each) for each in inner]


def _walk(tb: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    """Without frames of modules with ``__tracebackhide__ = True`` (pytest's convention), which only pass calls on."""
    while tb is not None:
        if tb.tb_frame.f_globals.get("__tracebackhide__") is not True:
            yield tb.tb_frame, tb.tb_lineno
        tb = tb.tb_next


def _frame(frame: FrameType, number: int) -> str:
    code = frame.f_code
    place = f'  File "{clean(code.co_filename, MAX_PATH)}", line {number}, in {clean(code.co_name, MAX_LINE)}'
    source = _source(code.co_filename, number)
    return f"{place}\n    {source}" if source else place


def _source(filename: str, number: int) -> str:
    # Only from files that are source code: the name of compiled text is free, and may be that of a device.
    if not filename.endswith(".py"):
        return ""
    try:
        return clean(linecache.getline(filename, number).strip(), MAX_LINE)
    except Exception:  # noqa: BLE001 (reading source is a courtesy)
        return ""
