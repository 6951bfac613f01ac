"""The negative controls: a stack that lacks one of the things that keep the promises. The checker must find it out.

Product code is copied and one place of the copy changed; services find the copy before the real one. A change that no
longer finds its place fails the control.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .plan import Kind, Mix
from .violation import Violation

__all__ = ["CONTROLS", "Control", "break_copy"]

ROOT = Path(__file__).parents[2]
STORAGE = "libs/common/src/holdfast/storage"
LIFECYCLE, LEASES = f"{STORAGE}/lifecycle.py", f"{STORAGE}/leases.py"


@dataclass(frozen=True, slots=True)
class Change:
    """``old``, which is once in the file, becomes ``new``."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Control:
    """What is taken away, the faults that it is there for, and the rules that must notice.

    Attributes:
        changes: to the copied code.
        sabotage: SQL for the database.
        rules: at least one of them must be broken.
    """

    changes: tuple[Change, ...]
    mix: Mix
    rules: frozenset[str]
    sabotage: str = ""

    def is_caught_by(self, violations: Iterable[Violation]) -> bool:
        """Whether the checker noticed, and for the right reason."""
        return any(violation.rule in self.rules for violation in violations)


CONTROLS = {
    # Completing by id alone: a worker that was taken for lost settles, or fails, what another one has or had.
    "fence": Control(
        (
            Change(
                LIFECYCLE,
                "AND s.state = ANY (r.from_states)",
                "AND (r.expected_token IS NOT NULL OR s.state = ANY (r.from_states))",
            ),
            Change(LIFECYCLE, "AND (r.expected_token IS NULL OR s.lease_token = r.expected_token)", ""),
            Change(LIFECYCLE, "AND s.state = {PROCESSING} AND s.lease_token = l.token", ""),
            Change(LEASES, "AND s.lease_token = l.expected_token", ""),
            Change(LEASES, "AND s.lease_token = held.expected_token", ""),
        ),
        Mix(0.6, {(Kind.PAUSE, "processor"): 1}, {Kind.PAUSE: (4.5, 8.0)}),
        frozenset({"fence", "doubled"}),
    ),
    # An event that is queued again although it was processed is processed again.
    "log-uniqueness": Control(
        (
            Change(
                LIFECYCLE,
                "EXISTS (SELECT 1 FROM processed_event_log l WHERE l.event_id = s.event_id) AS is_processed",
                "false AS is_processed",
            ),
        ),
        Mix(0.5, {(Kind.REQUEUE, "postgres"): 1}, {}),
        frozenset({"doubled"}),
        sabotage="ALTER TABLE processed_event_log DROP CONSTRAINT pk_processed_event_log",
    ),
    # Nobody takes an expired lease away: neither maintenance nor the processor itself.
    "sweep": Control(
        (
            Change(
                LEASES,
                "WHERE state = {PROCESSING} AND lease_expires_at < now()",
                "WHERE false AND state = {PROCESSING} AND lease_expires_at < now()",
            ),
        ),
        Mix(0.3, {(Kind.KILL, "processor"): 1}, {}),
        frozenset({"lease"}),
    ),
}
"""By the name of what is missing."""


def break_copy(control: Control, folder: Path) -> Path:
    """Copy the code that the control changes, change the copy, and return where modules are found in it.

    Raises:
        ValueError: a change does not find its place; bring the control up to date with the code.
    """
    for change in control.changes:
        room = Path(change.file).parent
        copied = folder / "holdfast" / room.name
        if not copied.exists():
            shutil.copytree(ROOT / room, copied, ignore=shutil.ignore_patterns("__pycache__"))
        file = copied / Path(change.file).name
        text = file.read_text()
        if text.count(change.old) != 1:
            raise ValueError(f"{change.file} has {text.count(change.old)} places like {change.old!r}, not one")
        file.write_text(text.replace(change.old, change.new))
    return folder
