"""What can be wrong with an event that somebody sent."""

from dataclasses import dataclass
from typing import NoReturn

__all__ = ["Fault", "InvalidEvent", "fail", "pointer"]

_MAX_NAME_LENGTH = 64
"""Characters of a member's name that are sent back: a name is the sender's text, and may be as long as the body."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with the input. ``where`` is a JSON pointer into the body, or a header's name."""

    where: str
    code: str
    detail: str

    def as_dict(self) -> dict[str, str]:
        """As an entry of a problem's ``errors``."""
        kind = "pointer" if self.where.startswith("/") or not self.where else "header"
        return {kind: self.where, "code": self.code, "detail": self.detail}


class InvalidEvent(ValueError):
    """The request is not a CloudEvent; ``faults`` says everything that is wrong with it."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(fault.detail for fault in faults))
        self.faults = faults


def fail(where: str, code: str, detail: str) -> NoReturn:
    """Give up at the first fault, behind which no other can be found.

    Raises:
        InvalidEvent: always.
    """
    raise InvalidEvent([Fault(where, code, detail)])


def pointer(name: str) -> str:
    """The JSON pointer (RFC 6901) to a member of the outermost object."""
    return "/" + name[:_MAX_NAME_LENGTH].replace("~", "~0").replace("/", "~1")
