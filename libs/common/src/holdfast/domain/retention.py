"""How long events are kept after they have ended, and by what right they go."""

from dataclasses import dataclass

from holdfast.domain.state import FINISHED, OPEN, State

__all__ = ["BY_DEFAULT", "MAX_DAYS", "RULED", "RetentionRule", "days_in_force"]

MAX_DAYS = 36_500
"""Of a rule. Who keeps events for longer than a hundred years keeps them for ever."""

RULED = FINISHED
"""States that a rule can be made for. An open event never goes: somebody is still bound to move it on."""

BY_DEFAULT = frozenset({State.PROCESSED, State.DISCARDED})
"""States that the default of a deployment speaks of. A dead letter waits for a decision, and a rule is one."""


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """What a tenant says about a state. ``days`` after its end an event goes; ``None``: it is kept for ever."""

    state: State
    days: int | None


def days_in_force(state: State, rule: RetentionRule | None, *, default_days: int) -> int | None:
    """After how many days an ended event goes; ``None``: never.

    Args:
        rule: the tenant's own for this state, if it has one.
        default_days: of the deployment; 0: there is none.
    """
    if state in OPEN:
        return None
    if rule is not None:
        return rule.days
    return default_days if default_days > 0 and state in BY_DEFAULT else None
