"""Where the handlers of a process are found."""

import importlib
import re
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from holdfast.domain.errors import ConfigurationError
from holdfast.processor.handlers.registry import Handlers

__all__ = ["ENTRY_POINTS", "discover"]

ENTRY_POINTS = "holdfast.handlers"
"""The entry-point group under which an installed package offers its :class:`Handlers`."""

_PATH = re.compile(r"[\w.]+:\w+")


def discover(path: str | None) -> Handlers:
    """The handlers to run: those at ``package.module:attribute``, else those of every installed package.

    Raises:
        ConfigurationError: nothing there, not a :class:`Handlers`, an empty one, or two that claim the same.
    """
    found = _at(path) if path else _installed()
    if not len(found):
        raise ConfigurationError(
            f"{path} declares no handlers" if path else
            f"no handlers: install a package with an entry point in the group {ENTRY_POINTS},"
            " or set HOLDFAST_HANDLERS=package.module:attribute"
        )  # fmt: skip
    return found


def _at(path: str) -> Handlers:
    where = f"HOLDFAST_HANDLERS={path}"
    if _PATH.fullmatch(path) is None:
        raise ConfigurationError(f"{where}: it must be package.module:attribute")
    module, _, attribute = path.partition(":")
    try:
        return _checked(getattr(importlib.import_module(module), attribute), where)
    except (ImportError, AttributeError) as exc:
        raise ConfigurationError(f"{where}: {exc}") from exc


def _installed() -> Handlers:
    found = Handlers()
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        found.include(_loaded(entry))
    return found


def _loaded(entry: EntryPoint) -> Handlers:
    where = f"entry point {ENTRY_POINTS}/{entry.name} ({entry.value})"
    try:
        return _checked(entry.load(), where)
    except (ImportError, AttributeError) as exc:
        raise ConfigurationError(f"{where}: {exc}") from exc


def _checked(found: Any, where: str) -> Handlers:
    if not isinstance(found, Handlers):
        raise ConfigurationError(f"{where} must name a holdfast.processor.Handlers, not {type(found).__name__}")
    return found
