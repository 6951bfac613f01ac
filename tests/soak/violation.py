"""What a rule says of a history."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .history import History

__all__ = ["Rule", "Violation"]


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken."""

    rule: str
    about: str
    what: str


Rule = Callable[[History], Iterator[Violation]]
