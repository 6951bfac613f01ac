"""Rules for what operators asked for: done once for each request, and by nobody else."""

from collections import Counter
from collections.abc import Iterator

from .history import History
from .violation import Violation

__all__ = ["asked_for", "carried_out_once", "copied_once", "discards"]

DONE_BY: dict[str, tuple[str, set[str | None]]] = {
    "replay": ("queued", {"replayed"}),
    "discard": ("discarded", {None, "cancelled"}),
}
"""Action → state and reasons of the update that it makes."""

ALSO_ASKED = {"discard": "cancel"}
"""What moves an event the same way, but need not: it may have ended otherwise at that moment."""


def carried_out_once(history: History) -> Iterator[Violation]:
    """Each request that was answered with 202 moved its event once, or made one copy of it; no request did both."""
    for action, (state, reasons) in DONE_BY.items():
        actions = (action, ALSO_ASKED.get(action))
        asked = Counter(each["event"] for each in history.asked if each["action"] in actions)
        keys = {
            (each["event"], each["key"])
            for each in history.answered
            if each["action"] == action and each["status"] == 202 and each["answered"] == each["event"]
        }
        moved = Counter(event for event, _ in keys)
        done = Counter(
            each["event"] for each in history.updates if each["state"] == state and each["reason"] in reasons
        )
        for event in asked.keys() | done.keys():
            if not moved[event] <= done[event] <= asked[event]:
                what = f"{action}: asked {asked[event]} times, answered {moved[event]}, done {done[event]}"
                yield Violation("operated", event, what)


def copied_once(history: History) -> Iterator[Violation]:
    """A request that moved its event made no copy of it as well."""
    stored = {state["ce_id"] for state in history.states}
    for each in history.answered:
        is_move = each["status"] == 202 and each["answered"] == each["event"]
        if is_move and f"replay:{each['event']}:{each['key']}" in stored:
            yield Violation("doubled", each["event"], "replayed, and copied, by one request")


def asked_for(history: History) -> Iterator[Violation]:
    """Nobody discards an event but an operator, or a later one of its window."""
    asked = {each["event"] for each in history.asked if each["action"] in ("discard", "cancel")}
    asked |= {each["event"] for each in history.updates if each["reason"] == "superseded"}
    for state in history.states:
        if state["state"] == "discarded" and state["event"] not in asked:
            yield Violation("operated", state["event"], "discarded, and nobody asked for it")


def discards(history: History) -> Counter[str]:
    """How often each event was discarded by a move that skips a version (ADR 0015): all but those of a running event."""
    return Counter(
        update["event"] for update in history.updates if update["state"] == "discarded" and not update["is_running"]
    )
