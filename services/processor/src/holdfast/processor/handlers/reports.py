"""What is told of an error, and to whom. Making a report never fails and is bounded, whatever the error's class does."""

from dataclasses import dataclass
from types import FrameType

from pydantic import ValidationError

from holdfast.runtime.tracebacks import MAX_MESSAGE, clean, error_text, error_type, format_error, innermost

__all__ = ["MAX_CODE", "Coded", "Report", "faults_of", "is_code", "report_of"]

MAX_CODE = 100

MAX_FAULTS = 20

FRAMES = 3
"""Innermost frames in a fingerprint: enough to tell two calls of one function apart."""

MAX_OWN_FRAMES = 1000

_TELLING_FAULTS = frozenset({"union_tag_invalid"})
"""Faults of pydantic whose message repeats the value that was sent."""


class Coded(Exception):
    """An error that Holdfast knows."""

    code: str | None = None
    """The error's type for people and programs; ``None``: the name of its class."""

    is_for_clients = False
    """Whether its text was written for live clients. Any other text is an exception's own and may quote a payload."""

    has_place = True
    """Whether its frames say where it comes from. Where no handler has run they would be frames of Holdfast alone."""


@dataclass(frozen=True, slots=True)
class Report:
    """An error in words.

    ``message`` and ``traceback`` are for operators; ``reason`` is for everybody, or ``None``. ``frames`` is the traceback
    without the texts of exceptions, for the log. ``places`` are the frames that make up a fingerprint.
    """

    type: str
    message: str
    reason: str | None = None
    traceback: str | None = None
    frames: str | None = None
    places: tuple[str, ...] = ()


def report_of(exc: BaseException, *, package: str | None, with_texts: bool = True) -> Report:
    """Describe an error; ``package`` is the handler's top-level package.

    Calls the ``__str__`` of the error and, unless its traceback is made without texts, of those that led to it. That may
    take as long as they like.
    """
    # Without texts all that runs is ours, and quick: only an interruption that comes late can end it, and one comes once.
    for _ in range(1 if with_texts else 2):
        try:
            return _report(exc, package, with_texts)
        except BaseException:  # noqa: BLE001, S112 (no memory, a full stack, an interruption: there was an error all the same)
            continue
    return Report(error_type(exc), "the error could not be described")


def is_code(text: object) -> bool:
    """Whether it is 1 to 100 letters, digits, dots, dashes and underscores."""
    return isinstance(text, str) and len(text) <= MAX_CODE and text.isascii() and text.translate(_MARKS).isalnum()


_MARKS = {ord(mark): "x" for mark in "._-"}


def faults_of(exc: ValidationError) -> str:
    """Where and why, without the offending values: they are payload."""
    faults = exc.errors(include_url=False, include_input=False, include_context=False)[:MAX_FAULTS]
    told = (fault["type"] if fault["type"] in _TELLING_FAULTS else fault["msg"] for fault in faults)
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'data'}: {text}" for fault, text in zip(faults, told, strict=True)
    )


def _report(exc: BaseException, package: str | None, with_texts: bool) -> Report:
    message = clean(faults_of(exc), MAX_MESSAGE) if isinstance(exc, ValidationError) else error_text(exc)
    has_place = not isinstance(exc, Coded) or exc.has_place
    return Report(
        type=_type(exc),
        message=message,
        reason=message if isinstance(exc, Coded) and exc.is_for_clients else None,
        traceback=format_error(exc, with_texts=with_texts) if has_place else None,
        frames=format_error(exc, with_texts=False) if has_place else None,
        places=_places(exc, package) if has_place else (),
    )


def _type(exc: BaseException) -> str:
    code = exc.code if isinstance(exc, Coded) else None
    return code if code is not None and is_code(code) else error_type(exc)


def _places(exc: BaseException, package: str | None) -> tuple[str, ...]:
    """The innermost frames as ``module:function``, those of the handler's own package if there are any.

    No line numbers, which move with every edit, and no library frames, which move with every upgrade.
    """
    frames = [(_module(frame), frame.f_code.co_name) for frame in innermost(exc.__traceback__, MAX_OWN_FRAMES)]
    own = [frame for frame in frames if frame[0].partition(".")[0] == package]
    return tuple(f"{module}:{function}" for module, function in (own or frames)[-FRAMES:])


def _module(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__", "")
    return name if isinstance(name, str) else ""
