"""What ``holdfast doctor`` has found: one finding a question, with a verdict and a remedy."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

__all__ = [
    "CLOCK_SECONDS",
    "Finding",
    "Verdict",
    "clock_finding",
    "is_wrong",
    "ok",
    "report",
    "unchecked",
    "warning",
    "wrong",
]

CLOCK_SECONDS = 5.0
"""How far clocks may be apart before it is worth a word: tokens and ``--after 1h`` are reckoned by them, in whole seconds."""


class Verdict(StrEnum):
    """What a question came to."""

    ok = "ok"
    warning = "warning"
    """It works, and will surprise somebody."""
    wrong = "wrong"
    unchecked = "unchecked"
    """It could not be found out; the remedy says what it would take."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer. ``remedy`` is empty where nothing is to be done."""

    check: str
    """What was asked, in a word: ``api``, ``key``, ``database``."""
    verdict: Verdict
    summary: str
    remedy: str = ""


def ok(check: str, summary: str) -> Finding:
    """Nothing to do."""
    return Finding(check, Verdict.ok, summary)


def warning(check: str, summary: str, remedy: str) -> Finding:
    """It works, and will surprise somebody."""
    return Finding(check, Verdict.warning, summary, remedy)


def wrong(check: str, summary: str, remedy: str) -> Finding:
    """It has to be mended."""
    return Finding(check, Verdict.wrong, summary, remedy)


def unchecked(check: str, summary: str, remedy: str) -> Finding:
    """It could not be found out."""
    return Finding(check, Verdict.unchecked, summary, remedy)


def is_wrong(findings: Iterable[Finding]) -> bool:
    """Whether something has to be mended."""
    return any(each.verdict is Verdict.wrong for each in findings)


def report(findings: list[Finding]) -> dict[str, Any]:
    """The document that ``-o json`` prints."""
    return {"status": "wrong" if is_wrong(findings) else "ok", "findings": [asdict(each) for each in findings]}


def clock_finding(whose: str, ahead_seconds: float) -> Finding:
    """What a clock that is so far ahead of this machine's comes to."""
    if abs(ahead_seconds) < CLOCK_SECONDS:
        return ok("clock", f"{whose} and this machine have the same time")
    direction = "ahead of" if ahead_seconds > 0 else "behind"
    return warning(
        "clock", f"the clock of {whose} is {abs(ahead_seconds):.0f} s {direction} this machine's",
        "set both by NTP: live tokens and '--after 1h' are reckoned by them",
    )  # fmt: skip
