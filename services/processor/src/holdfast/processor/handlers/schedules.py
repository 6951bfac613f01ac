"""Schedules that handlers declare: what ``handlers.every`` takes, checked where it stands."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.domain.data import MAX_DATA_BYTES
from holdfast.domain.errors import ConfigurationError, InvalidSchedule
from holdfast.domain.event import canonical_json
from holdfast.domain.names import is_tenant
from holdfast.domain.schedule import MAX_SCHEDULES, Missed, Overlap, ScheduleSpec, faults_of
from holdfast.domain.window_options import window_attributes
from holdfast.runtime.cron import read_cron

__all__ = ["NO_DATA", "Declared", "Schedules", "schedule_of"]

NO_DATA: Any = object()
"""``None`` is data: JSON's ``null``."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A schedule that handlers declare. ``place`` is ``file:line``, for messages."""

    tenant: str
    spec: ScheduleSpec
    place: str


class Schedules:
    """The schedules of one collection of handlers, each name of a tenant once."""

    def __init__(self) -> None:
        self._by_name: dict[tuple[str, str], Declared] = {}

    def add(self, declared: Declared) -> None:
        """Take one in.

        Raises:
            ConfigurationError: its name is taken, or there are too many.
        """
        key = (declared.tenant, declared.spec.name)
        if taken := self._by_name.get(key):
            raise ConfigurationError(
                f"two schedules of the tenant {declared.tenant!r} are named {declared.spec.name!r}: {taken.place} and"
                f" {declared.place}; rename one"
            )
        if sum(tenant == declared.tenant for tenant, _ in self._by_name) >= MAX_SCHEDULES:
            raise ConfigurationError(f"{declared.place}: a tenant has at most {MAX_SCHEDULES} schedules")
        self._by_name[key] = declared

    def __iter__(self) -> Iterator[Declared]:
        return iter(self._by_name.values())


def schedule_of(
    cron: Any, *, name: Any, tenant: Any, type: Any, tz: Any, data: Any, missed: Any, overlap: Any,  # noqa: A002
    debounce: Any, unique: Any, **texts: Any,
) -> Declared:  # fmt: skip
    """What ``handlers.every`` was called with, as a value.

    Raises:
        ConfigurationError: the message names the place, the argument that is wrong, what was given and the remedy.
    """
    place = _place()
    given = {
        "cron": cron,
        "name": name,
        "type": type,
        "tz": tz,
        **{key: each for key, each in texts.items() if each is not None},
    }
    for field, value in given.items():
        if not isinstance(value, str):
            raise ConfigurationError(f"{place}: {field} takes a text, not {value!r}")
    if not isinstance(tenant, str) or not is_tenant(tenant):
        raise ConfigurationError(
            f"{place}: tenant is {tenant!r}; it takes 1 to 63 ASCII letters, digits, dots, dashes and underscores"
        )
    spec = ScheduleSpec(
        name=name, cron=" ".join(cron.split()), timezone=tz, type=type, data=_json(place, data),
        missed=_choice(place, "missed", Missed, missed), overlap=_choice(place, "overlap", Overlap, overlap),
        extensions=_window(place, debounce, unique), **texts,
    )  # fmt: skip
    for field, takes in faults_of(spec):
        raise ConfigurationError(f"{place}: {field} is {getattr(spec, field)!r}; it takes {takes}")
    try:
        read_cron(cron, tz)
    except InvalidSchedule as exc:
        field, value = ("tz", tz) if exc.field == "timezone" else ("cron", cron)
        raise ConfigurationError(f"{place}: {field} is {value!r}, which {exc}") from None
    return Declared(tenant, spec, place)


def _choice(place: str, field: str, choices: Any, value: Any) -> Any:
    try:
        return choices(value)
    except ValueError:
        known = ", ".join(f'"{each}"' for each in choices)
        raise ConfigurationError(f"{place}: {field} is {value!r}; it takes one of {known}") from None


def _window(place: str, debounce: Any, unique: Any) -> dict[str, Any]:
    try:
        return window_attributes(debounce, unique, {})
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(f"{place}: {exc}") from None


def _json(place: str, data: Any) -> bytes | None:
    if data is NO_DATA:
        return None
    try:
        text = canonical_json(data).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise ConfigurationError(
            f"{place}: data cannot be written as JSON ({exc}); it takes dicts, lists, texts and numbers"
        ) from None
    if len(text) > MAX_DATA_BYTES:
        raise ConfigurationError(
            f"{place}: data has {len(text)} bytes as JSON and may have {MAX_DATA_BYTES}; put large data elsewhere"
        )
    return text


def _place() -> str:
    """``file:line`` of the call outside of this package."""
    own = str(Path(__file__).parent)
    frame = inspect.currentframe()
    while frame is not None and str(Path(frame.f_code.co_filename).parent) == own:
        frame = frame.f_back
    return "an unknown place" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
