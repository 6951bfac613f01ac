"""Rules for events that nobody sends: what handlers emit, groups, further handlers, schedules; and for windows."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator

from .history import History, Record, by_event
from .violation import Violation

__all__ = ["debounced_to_the_last", "emitted_once", "groups_join_once", "mirrored_once", "ticked_once", "unique_within"]

DEBOUNCE_SECONDS, UNIQUE_SECONDS = 3.0, 5.0
"""As producers ask for; each tenant has one key of each."""

TOLERANCE_SECONDS = 0.5
"""An event is dated by the beginning of its transaction, and its key is locked later."""

SCHEDULED_AFTER_SECONDS = 10.0
"""From then on a run has every tick."""

MINUTE = 60
ENDS = ("processed", "dead", "discarded")


def emitted_once(history: History) -> Iterator[Violation]:
    """A processed event has the children that its handler made, once; any other has none."""
    processed = {entry["event"] for entry in history.log}
    children = Counter(state["parent"] for state in history.states if state["type"] == "soak.child")
    for state in history.states:
        if state["type"] == "soak.parent":
            wanted = state["data"]["fails"] if state["event"] in processed else 0
            yield from _differing(state, "children", children[state["event"]], wanted)


def groups_join_once(history: History) -> Iterator[Violation]:
    """A processed event has its group, whose one event has counted the members as they first ended."""
    processed = {entry["event"] for entry in history.log}
    members, parents, updates = defaultdict(list), defaultdict(set), by_event(history.updates)
    for member in history.members:
        members[member["group"]].append(member["event"])
        parents[member["parent"]].add(member["group"])
    joined = defaultdict(list)
    for state in history.states:
        if state["source"] == "/holdfast/groups" and not _is_copy(state):
            joined[state["ce_id"]].append(state)
    for state in history.states:
        if state["type"] == "soak.fan":
            groups = parents[state["event"]]
            yield from _differing(state, "groups", len(groups), int(state["event"] in processed))
            for group in groups:
                yield from _differing(state, "members", len(members[group]), state["data"]["fails"] + 1)
    for group, events in members.items():
        if len(joined[group]) != 1:
            yield Violation("doubled" if joined[group] else "lost", group, f"{len(joined[group])} events of the group")
            continue
        firsts = [each["state"] for event in events for each in _ended(updates.get(event, []))[:1]]
        counted = {state: joined[group][0]["data"][state] for state in ENDS}
        if counted != {state: firsts.count(state) for state in ENDS}:
            yield Violation("group", group, f"counted {counted}; its members first ended as {firsts}")


def mirrored_once(history: History) -> Iterator[Violation]:
    """An event of a type with a further handler has one event for that; the copy of a processed one has none."""
    settled = {update["event"] for update in history.updates if update["state"] in ("processed", "failed")}
    made = Counter(state["parent"] for state in history.states if state["made_for"] == "mirror" and not _is_copy(state))
    for state in history.states:
        if state["type"] == "soak.shared" and state["made_for"] is None:
            count = made[state["event"]]
            least = int(state["event"] in settled and not _is_copy(state))
            if not least <= count <= int(not _is_copy(state)):
                yield Violation(
                    "doubled" if count > least else "lost", state["event"], f"{count} events for its further handler"
                )


def ticked_once(history: History) -> Iterator[Violation]:
    """Every minute of the run has one event of the schedule, also those in which everything was down."""
    last = history.run.get("ticks_until")
    times = Counter(
        round(state["time"]) for state in history.states if state["type"] == "soak.tick" and not _is_copy(state)
    )
    for at, count in times.items():
        if count > 1 or at % MINUTE:
            yield Violation("tick", str(at), f"{count} events of the schedule for this moment")
    first = int(history.run["began"] + SCHEDULED_AFTER_SECONDS) // MINUTE * MINUTE + MINUTE
    for at in range(first, int(last or 0), MINUTE):
        if not times[at]:
            yield Violation("tick", str(at), "a tick without an event")


def debounced_to_the_last(history: History) -> Iterator[Violation]:
    """Of debounced events those are left out that another one of the key came after in time, and no others."""
    superseded = {each["event"]: each["superseded_by"] for each in history.updates if each["reason"] == "superseded"}
    updates, about = by_event(history.updates), {state["event"]: state for state in history.states}
    for event, by in superseded.items():
        began = [each for each in updates[event] if each["state"] == "processing"]
        if began or by not in about or event not in about or about[by]["tenant"] != about[event]["tenant"]:
            yield Violation("window", event, f"superseded by {by}, after {len(began)} attempts")
    for events in _by_tenant(history, "soak.debounced").values():
        for one, two in itertools.pairwise(events):
            gap = two["received_at"] - one["received_at"]
            if one["event"] not in superseded and gap < DEBOUNCE_SECONDS - TOLERANCE_SECONDS:
                yield Violation("window", one["event"], f"not superseded, though another one came {gap:.2f} s after it")
        if events and events[-1]["event"] in superseded and superseded[events[-1]["event"]] not in {
            each["event"] for each in events
            if each["received_at"] > events[-1]["received_at"] - TOLERANCE_SECONDS and each is not events[-1]
        }:  # fmt: skip
            yield Violation("window", events[-1]["event"], "the last one of its key was left out")


def unique_within(history: History) -> Iterator[Violation]:
    """Within a window there is one event, and only within it others are answered with that one."""
    for events in _by_tenant(history, "soak.unique").values():
        for one, two in itertools.pairwise(events):
            gap = two["received_at"] - one["received_at"]
            if gap < UNIQUE_SECONDS - TOLERANCE_SECONDS:
                yield Violation("window", two["event"], f"recorded {gap:.2f} s after the first one of its window")
    about = {state["event"]: state for state in history.states}
    for answer in history.left_out:
        state = about.get(answer["event"])
        if state is None or state["type"] != "soak.unique" or state["tenant"] != answer["tenant"]:
            yield Violation("lost", answer["event"], "answered as the first one of a window, and not there")
        elif (state["source"], state["ce_id"]) != (answer["source"], answer["ce_id"]):
            age = answer["asked_at"] - state["received_at"]
            if age > UNIQUE_SECONDS + TOLERANCE_SECONDS:
                yield Violation("window", answer["event"], f"another one was left out {age:.2f} s after it")


def _differing(state: Record, what: str, count: int, wanted: int) -> Iterator[Violation]:
    if count != wanted:
        rule = "doubled" if count > wanted else "lost"
        yield Violation(rule, state["event"], f"{count} {what} of an event that is {state['state']}, not {wanted}")


def _by_tenant(history: History, type_: str) -> dict[str, list[Record]]:
    """What producers sent, in the order in which it came."""
    found = defaultdict(list)
    for state in sorted(history.states, key=lambda each: float(each["received_at"])):
        if state["type"] == type_ and not _is_copy(state):
            found[state["tenant"]].append(state)
    return found


def _ended(updates: list[Record]) -> list[Record]:
    return [update for update in updates if update["state"] in ENDS]


def _is_copy(state: Record) -> bool:
    return str(state["ce_id"]).startswith("replay:")
