"""SQL statements made of parts. Sets of states are rendered from ``domain.state``, so that SQL and rules cannot differ."""

from collections.abc import Iterable

from sqlalchemy import TextClause, text

from holdfast.domain.state import CLAIMABLE, FINISHED, OPEN, State

__all__ = ["render", "state_list", "statement"]

_ORDER = (*sorted(CLAIMABLE, key=list(State).index), *(state for state in State if state not in CLAIMABLE))


def state_list(states: Iterable[State]) -> str:
    """``('queued', 'failed')``: always in one order, since PostgreSQL compares index predicates with a query's literals."""
    return "({})".format(", ".join(f"'{state}'" for state in sorted(states, key=_ORDER.index)))


_STATES = {
    "CLAIMABLE": state_list(CLAIMABLE),
    "FOUND_CLAIMABLE": f"|| '' IN {state_list(CLAIMABLE)}",
    "OPEN": state_list(OPEN),
    "FINISHED": state_list(FINISHED),
    **{state.name: f"'{state}'" for state in State},
}


def render(sql: str, **parts: str) -> str:
    """Fill in ``{CLAIMABLE}``, ``{OPEN}``, ``{FINISHED}``, single states such as ``{DEAD}``, and the named parts.

    ``s.state {FOUND_CLAIMABLE}`` asks the same as ``s.state IN {CLAIMABLE}``, of rows that are found by a key. It fits no
    partial index: where statistics are older than a backlog, those indexes seem empty to the planner, which then reads one
    of them from end to end instead of looking the key up.

    Parts are SQL of ours, never values: those are bound parameters.
    """
    return sql.format(**_STATES, **parts)


def statement(sql: str, **parts: str) -> TextClause:
    """:func:`render`, ready to be executed with bound parameters."""
    return text(render(sql, **parts))
