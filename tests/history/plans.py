"""What PostgreSQL does for the statements of a storage function: each is run with EXPLAIN, rolled back, and run again."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event

from holdfast.storage.database import Database

LARGE = frozenset({
    "event", "processing_state", "event_update", "processed_event_log", "audit_log", "event_statistics",
    "handler_statistics", "replay_item",
})  # fmt: skip
"""Tables that are never read from end to end."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One statement as it ran. ``buffers``: shared pages read, from memory or disk; ``removed``: rows that some node of the
    plan read and threw away; ``scanned``: large tables that were read from end to end; ``milliseconds`` without planning.
    """

    statement: str
    buffers: int
    removed: int
    scanned: tuple[str, ...]
    milliseconds: float
    text: str


@contextmanager
def explained(database: Database, *, is_generic: bool = False) -> Iterator[list[Plan]]:
    """The plans of all statements within the block, in their order.

    ``is_generic``: as of a statement that is prepared and planned once, whatever its parameters are.
    """
    plans: list[Plan] = []

    def explain(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        beside = cursor.connection.cursor()
        beside.execute("SAVEPOINT before_plan")
        subject = (
            _prepared(beside, statement, parameters) if is_generic else beside.mogrify(statement, parameters).decode()
        )
        beside.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {subject}")
        [[[top]]] = beside.fetchall()
        beside.execute("ROLLBACK TO SAVEPOINT before_plan")
        beside.execute("DEALLOCATE ALL")
        plans.append(_read(statement, top))

    event.listen(database.engine, "before_cursor_execute", explain)
    try:
        yield plans
    finally:
        event.remove(database.engine, "before_cursor_execute", explain)


def _prepared(cursor: Any, statement: str, parameters: dict[str, Any]) -> str:
    """Prepare it for every set of parameters; returns how to execute it with these."""
    names = list(parameters)
    cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    cursor.execute(
        "PREPARE planned_once AS " + statement % {name: f"${number}" for number, name in enumerate(names, 1)}
    )
    if not names:
        return "EXECUTE planned_once"
    values = cursor.mogrify(", ".join(["%s"] * len(names)), [parameters[name] for name in names]).decode()
    return f"EXECUTE planned_once ({values})"


def _read(statement: str, top: dict[str, Any]) -> Plan:
    nodes = list(_nodes(top["Plan"]))
    return Plan(
        statement=statement,
        buffers=top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"],
        removed=max(int(_removed(node)) for node in nodes),
        scanned=tuple(node["Relation Name"] for node in nodes if _is_scan(node)),
        milliseconds=top["Execution Time"],
        text="\n".join(_lines(top["Plan"])),
    )


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for each in node.get("Plans", []):
        yield from _nodes(each)


def _removed(node: dict[str, Any]) -> float:
    kinds = ("Filter", "Join Filter", "Index Recheck")
    return float(sum(node.get(f"Rows Removed by {kind}", 0) for kind in kinds) * node["Actual Loops"])


def _is_scan(node: dict[str, Any]) -> bool:
    return node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE and node["Actual Loops"] > 0


def _lines(node: dict[str, Any], depth: int = 0) -> Iterator[str]:
    """The plan, a line a node: type, relation, rows, buffers and conditions."""
    conditions = [
        f"{name}: {node[name]}" for name in ("Index Cond", "Recheck Cond", "Filter", "Sort Key") if name in node
    ]
    on = node.get("Index Name") or node.get("Relation Name") or ""
    counts = (
        f"rows={node['Actual Rows']}x{node['Actual Loops']} (planned {node['Plan Rows']}) removed={_removed(node):.0f}"
    )
    buffers = node["Shared Hit Blocks"] + node["Shared Read Blocks"]
    yield f"{'  ' * depth}{node['Node Type']} {on} {counts} buffers={buffers} {conditions}"
    for each in node.get("Plans", []):
        yield from _lines(each, depth + 1)
