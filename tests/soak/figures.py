"""Counts and times of a history, as a table and as JSON."""

import itertools
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from .history import History, Record, by_event
from .plan import KILLS
from .violation import Violation

__all__ = ["figures", "table"]

SETTLED = ("processed", "dead", "discarded")

INTERRUPTS = frozenset({"kill", "pause", "terminate", "kill-backend", "crash-postgres", "odd-defaults"})
"""Faults that end an attempt without a word, when they hit the processor, PostgreSQL or its connections."""

LASTING = frozenset({"pause", "crash-postgres", "odd-defaults"})
"""Of these, those that strike when they begin; the others are over when they have struck."""

LABELS = {
    "seconds": "seconds of faults",
    "faults": "faults",
    "spared": "faults that found their target still starting",
    "kills": "of the faults, kills",
    "accepted": "events accepted (202)",
    "duplicates": "of the 202, answered as duplicates",
    "stored": "events in the database",
    "processed": "processed",
    "dead": "dead",
    "discarded": "discarded",
    "open": "still open",
    "operated": "replays, discards and cancels asked for by operators",
    "lost": "lost",
    "doubled": "doubled",
    "calls_repeated": "calls to another service repeated, with the same key",
    "recovered": "attempts cut off and recovered",
    "recover_p50_seconds": "from the kill to the recovery, median, s",
    "recover_worst_seconds": "from the kill to the recovery, worst, s",
    "settle_p50_seconds": "from the kill to the event's settling, median, s",
    "settle_worst_seconds": "from the kill to the event's settling, worst, s",
    "settled_after_faults_seconds": "from the end of the faults to the last settling, s",
    "ready_after_faults_seconds": "of which until every service was ready again, s",
    "live_clients": "live clients",
    "live_updates": "live updates received",
    "live_connections_lost": "live connections lost",
    "gaps": "gaps told to live clients",
    "violations": "violations",
}


def figures(history: History, violations: Sequence[Violation]) -> dict[str, Any]:
    """Everything countable, in the order of :data:`LABELS`; ``by_kind`` and ``reasons`` give details."""
    rules = Counter(violation.rule for violation in violations)
    states = Counter(state["state"] for state in history.states)
    kinds = Counter(frame["kind"] for frame in history.frames)
    run = history.run
    settled = [update["at"] for update in history.updates if update["state"] in SETTLED]
    return {
        "seed": run["seed"],
        "seconds": round(run["faults_ended"] - run["began"], 1),
        "faults": len(history.faults),
        "spared": len(history.spared),
        "kills": sum(_is_kill(fault) for fault in history.faults),
        "accepted": len({answer["event"] for answer in history.accepted}),
        "duplicates": sum(answer["is_duplicate"] for answer in history.accepted),
        "stored": len(history.states),
        "processed": states["processed"],
        "dead": states["dead"],
        "discarded": states["discarded"],
        "open": len(history.states) - sum(states[state] for state in SETTLED),
        "operated": len(history.asked),
        "lost": rules["lost"],
        "doubled": rules["doubled"],
        "calls_repeated": len(history.calls) - len({call["event"] for call in history.calls}),
        **_recovery(history),
        "settled_after_faults_seconds": round(max([0.0, *(at - run["faults_ended"] for at in settled)]), 1),
        "ready_after_faults_seconds": round(run["calm_since"] - run["faults_ended"], 1),
        "live_clients": len(history.clients),
        "live_updates": kinds["update"],
        "live_connections_lost": kinds["lost"],
        "gaps": kinds["gap"],
        "violations": len(violations),
        "by_kind": dict(sorted(Counter(f"{each['kind']} {each['target']}" for each in history.faults).items())),
        "reasons": dict(Counter(state["error"] for state in history.states if state["state"] == "dead")),
        "by_type": dict(sorted(Counter(f"{state['type']} {state['state']}" for state in history.states).items())),
        "by_rule": dict(rules),
    }


def table(counted: dict[str, Any]) -> str:
    """A table in Markdown."""
    rows = [f"| {label} | {_shown(counted[name])} |" for name, label in LABELS.items()]
    return "\n".join(["| what | figure |", "|---|---|", *rows])


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:,}"


def _is_kill(fault: Record) -> bool:
    """A kill that hit nothing, because the target was down, is none."""
    return fault["kind"] in KILLS and (fault["hit"] is not None or fault["kind"] not in ("kill", "kill-backend"))


def _recovery(history: History) -> dict[str, Any]:
    """Times of the attempts that were cut off, from the last fault that can have done it."""
    times = list(_cut_off(history))
    recovered, settled = [one for one, _ in times], [two for _, two in times if two is not None]
    return {
        "recovered": len(times),
        "recover_p50_seconds": round(statistics.median(recovered), 1) if recovered else None,
        "recover_worst_seconds": round(max(recovered), 1) if recovered else None,
        "settle_p50_seconds": round(statistics.median(settled), 1) if settled else None,
        "settle_worst_seconds": round(max(settled), 1) if settled else None,
    }


def _cut_off(history: History) -> Iterator[tuple[float, float | None]]:
    """For each attempt that was cut off: seconds from the fault to the recovery, and to the event's next settling."""
    strikes = [
        fault["at" if fault["kind"] in LASTING else "ended"]
        for fault in history.faults
        if fault["kind"] in INTERRUPTS and fault["target"] in ("processor", "postgres", "defaults")
    ]
    for updates in by_event(history.updates).values():
        for claim, recovery in itertools.pairwise(updates):
            before = [at for at in strikes if claim["at"] <= at <= recovery["at"]]
            if recovery["reason"] == "recovered" and before:
                settles = [each["at"] for each in updates if each["at"] > recovery["at"] and each["state"] in SETTLED]
                yield recovery["at"] - min(before), settles[0] - min(before) if settles else None
