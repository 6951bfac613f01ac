"""Windows as options in Python: ``Debounce`` and ``Unique``, and the extension attributes that they stand for. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.domain.window import (
    DEBOUNCE_KEY,
    DEBOUNCE_MAX_SECONDS,
    DEBOUNCE_SECONDS,
    UNIQUE_KEY,
    UNIQUE_SECONDS,
    WINDOW_ATTRIBUTES,
    window_faults,
)

__all__ = ["Debounce", "Unique", "debounce_of", "unique_of", "window_attributes"]

_DEBOUNCE = {"seconds": DEBOUNCE_SECONDS, "key": DEBOUNCE_KEY, "max_seconds": DEBOUNCE_MAX_SECONDS}
_UNIQUE = {"seconds": UNIQUE_SECONDS, "key": UNIQUE_KEY}


@dataclass(frozen=True, slots=True)
class Debounce:
    """Of the events of a key only the last runs, once none has come for ``seconds``.

    Args:
        seconds: 1 to 86,400, a whole number.
        key: 1 to 255 bytes in UTF-8; ``None``: the event's subject, and without that all events of the type have one key.
        max_seconds: the longest wait since the first event that was replaced, ``seconds`` to 604,800; ``None``: ten times
            ``seconds``.

    Raises:
        ValueError: an argument is wrong.
    """

    seconds: int
    key: str | None = None
    max_seconds: int | None = None

    def __post_init__(self) -> None:
        _check(self, _DEBOUNCE)


@dataclass(frozen=True, slots=True)
class Unique:
    """Of the events of a key only the first runs: for ``seconds`` further ones are duplicates of it.

    Args:
        seconds: 1 to 2,592,000, a whole number.
        key: as that of :class:`Debounce`.

    Raises:
        ValueError: an argument is wrong.
    """

    seconds: int
    key: str | None = None

    def __post_init__(self) -> None:
        _check(self, _UNIQUE)


def window_attributes(debounce: Any, unique: Any, extensions: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that the options stand for; ``extensions`` are those that the event has already.

    Raises:
        TypeError: an option is neither ``None`` nor one.
        ValueError: both are given, or one of them beside an attribute of a window.
    """
    _check_kind("debounce", Debounce, debounce)
    _check_kind("unique", Unique, unique)
    if debounce is None and unique is None:
        return {}
    if debounce is not None and unique is not None:
        raise ValueError(f"an event has debounce or unique, not both: leave one out of {debounce!r} and {unique!r}")
    option, names = (debounce, _DEBOUNCE) if unique is None else (unique, _UNIQUE)
    if beside := sorted(name for name in WINDOW_ATTRIBUTES if extensions.get(name) is not None):
        raise ValueError(f"{option!r} says it all: leave {', '.join(beside)} out, or send attributes only")
    return _attributes(option, names)


def debounce_of(extensions: Mapping[str, Any]) -> Debounce | None:
    """The option that checked attributes stand for."""
    return Debounce(**_read(extensions, _DEBOUNCE)) if DEBOUNCE_SECONDS in extensions else None


def unique_of(extensions: Mapping[str, Any]) -> Unique | None:
    """As :func:`debounce_of`."""
    return Unique(**_read(extensions, _UNIQUE)) if UNIQUE_SECONDS in extensions else None


def _attributes(option: Any, names: Mapping[str, str]) -> dict[str, Any]:
    given = {name: getattr(option, field) for field, name in names.items()}
    return {name: value for name, value in given.items() if value is not None}


def _read(extensions: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A number may be a text, as headers have it."""
    present = {field: extensions[name] for field, name in names.items() if name in extensions}
    return {field: value if field == "key" else int(value) for field, value in present.items()}


def _check(option: Any, names: Mapping[str, str]) -> None:
    """By the rules of the attributes; but a number is one here, and there are fields for it."""
    what = type(option).__name__
    texts = [field for field in names if field != "key" and isinstance(getattr(option, field), str)]
    faults = [f"{field} is a whole number of seconds, such as 30; not {getattr(option, field)!r}" for field in texts]
    present = {names["seconds"]: option.seconds, **_attributes(option, names)}
    called = {name: field for field, name in names.items()}
    if faults := faults or [detail for _, _, detail in window_faults(present, called)]:
        raise ValueError(f"{what}: {'; '.join(faults)}")


def _check_kind(name: str, kind: type[Debounce] | type[Unique], option: Any) -> None:
    if option is not None and not isinstance(option, kind):
        raise TypeError(f"{name} is a {kind.__name__}, such as {kind.__name__}(30, key=…); not {option!r}")
