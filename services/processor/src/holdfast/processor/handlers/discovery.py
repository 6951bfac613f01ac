"""Where the handlers of a process are found."""

import importlib
import re
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from types import TracebackType

from holdfast.domain.errors import ConfigurationError
from holdfast.processor.handlers.registry import Handlers
from holdfast.runtime.tracebacks import MAX_TRACEBACK, clean, error_text, format_error

__all__ = ["ENTRY_POINTS", "discover"]

ENTRY_POINTS = "holdfast.handlers"
"""The entry-point group under which an installed package offers its :class:`Handlers`."""

_PATH = re.compile(r"[\w.]+:\w+")

_MACHINERY = re.compile(rf"(importlib|{re.escape(__name__)})(\.|$)")


def discover(path: str | None) -> Handlers:
    """The handlers to run: those at ``package.module:attribute``, else those of every installed package.

    Raises:
        ConfigurationError: nothing there, not a :class:`Handlers`, an empty one, two that claim the same, or code that fails
            while it is imported; the text then has the traceback from the author's first frame on.
    """
    found = _at(path) if path else _installed()
    if not len(found):
        raise ConfigurationError(
            f"{path} declares no handlers" if path else
            f"no handlers: install a package with an entry point in the group {ENTRY_POINTS},"
            " or set HOLDFAST_HANDLERS=package.module:attribute"
        )  # fmt: skip
    found.check()
    return found


def _at(path: str) -> Handlers:
    where = f"HOLDFAST_HANDLERS={path}"
    if _PATH.fullmatch(path) is None:
        raise ConfigurationError(f"{where}: it must be package.module:attribute")
    module, _, attribute = path.partition(":")
    return _loaded(where, lambda: getattr(importlib.import_module(module), attribute))


def _installed() -> Handlers:
    found = Handlers()
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        found.include(_loaded(f"entry point {ENTRY_POINTS}/{entry.name} ({entry.value})", entry.load))
    return found


def _loaded(where: str, load: Callable[[], object]) -> Handlers:
    """Import them. Whatever that raises, ``SystemExit`` included, becomes the reason why they cannot be had."""
    try:
        found = load()
    except ConfigurationError as exc:
        raise ConfigurationError(f"{where}: {exc}") from None  # by ``Handlers.on``: it names the place
    except BaseException as exc:  # noqa: BLE001 (a module is anybody's code, and may call sys.exit())
        raise ConfigurationError(f"{where}: {_reason(exc)}") from None
    if not isinstance(found, Handlers):
        raise ConfigurationError(f"{where} must name a holdfast.processor.Handlers, not {type(found).__name__}")
    return found


def _reason(exc: BaseException) -> str:
    """One line where nothing is there. Where the author's code has failed: its error, and its frames."""
    if isinstance(exc, SyntaxError):
        return "it cannot be imported:\n" + clean("".join(traceback.format_exception_only(exc)), MAX_TRACEBACK)
    frames = _authors(exc.__traceback__)
    if frames is None:
        return error_text(exc)
    return "it cannot be imported:\n" + format_error(exc.with_traceback(frames), with_texts=True)


def _authors(stack: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of the import machinery, and without those of this module."""
    kept: TracebackType | None = None
    for each in reversed([*_walk(stack)]):
        if not _MACHINERY.match(each.tb_frame.f_globals.get("__name__") or ""):
            kept = TracebackType(kept, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return kept


def _walk(stack: TracebackType | None) -> Iterator[TracebackType]:
    while stack is not None:
        yield stack
        stack = stack.tb_next
